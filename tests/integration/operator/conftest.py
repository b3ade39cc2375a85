"""The operator as a process of its own, against a real API server; tests play the node by writing pods' status."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from crowd import Crowd
from operating import OperatorProcess, as_chart, finetunejob, prepared, published

from luthier_dev.controlplane import ControlPlane
from luthier_dev.paths import REPOSITORY
from luthier_dev.waiting import wait_until

Raw = dict[str, Any]

_SECONDS = itertools.count(1)


class Namespace:
    """A namespace of a test's own, and the hands of the node in it."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self.name = f"t-{secrets.token_hex(4)}"
        control_plane.kubectl("create", "namespace", self.name)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self._control_plane.kubectl("-n", self.name, *arguments, stdin=stdin)

    def apply(self, manifest: Raw) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, kind: str, name: str) -> Raw:
        return dict(json.loads(self.kubectl("get", kind, name, "-o", "json")))

    def all(self, kind: str) -> list[Raw]:
        return list(json.loads(self.kubectl("get", kind, "-o", "json"))["items"])

    def merge(self, kind: str, name: str, patch: Raw, *, status: bool = False) -> None:
        where = ["--subresource=status"] if status else []
        self.kubectl("patch", kind, name, "--type=merge", *where, "-p", json.dumps(patch))

    def until(self, what: str, condition: Callable[[], object], timeout_s: float = 60) -> None:
        wait_until(lambda: None if condition() else "not so yet", what, timeout_s, interval_s=0.05)

    def ready_reason(self, kind: str, name: str) -> str:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")

    def await_reason(self, kind: str, name: str, reason: str, timeout_s: float = 60) -> Raw:
        self.until(f"{kind} {name} {reason}", lambda: self.ready_reason(kind, name) == reason, timeout_s)
        return self.get(kind, name)

    # The FineTuneJob `reviews`

    def submit(self, **changes: Any) -> None:
        """Apply the FineTuneJob, with changes at the top of its spec."""
        self.apply(finetunejob(**changes))

    def run_through(self, key: str = "a", version: str = "v1") -> None:
        """Play both pods of a run."""
        self.prepare_ends(key)
        self.train_ends(key, version)
        self.until(version, lambda: self.version == version)

    def prepare_ends(self, key: str = "a") -> None:
        self.end(self.await_pod("prepare"), 0, prepared(key))

    def train_ends(self, key: str = "a", version: str = "v1") -> None:
        self.end(self.await_pod("train"), 0, published(key, version))

    @property
    def version(self) -> str:
        return str(self.get("ftj", "reviews").get("status", {}).get("artifact", {}).get("version", ""))

    @property
    def jobs(self) -> list[str]:
        return sorted(job["metadata"]["name"] for job in self.all("jobs"))

    # The node

    def await_pod(self, stage: str, *, ended: bool = False) -> Raw:
        """Return the pod that the Job controller made for a stage."""

        def found() -> list[Raw]:
            selector = f"app.kubernetes.io/component={stage}"
            pods = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
            return [p for p in pods if (p["status"]["phase"] in ("Succeeded", "Failed")) == ended]

        self.until(f"a pod of {stage}", found)
        return found()[0]

    def play(self, pod: Raw, phase: str, state: Raw, **status: Any) -> None:
        """Write a pod's status as its kubelet would."""
        container = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        self.merge(
            "pod",
            pod["metadata"]["name"],
            {"status": {"phase": phase, "containerStatuses": [container], **status}},
            status=True,
        )

    def end(self, pod: Raw, exit_code: int, message: str = "", reason: str = "") -> None:
        # Each pod ends after the one before it, as in life.
        ended = f"{datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(_SECONDS)):%Y-%m-%dT%H:%M:%SZ}"
        times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": ended}
        terminated = {"exitCode": exit_code, "message": message, "reason": reason or "Completed", **times}
        self.play(pod, "Failed" if exit_code else "Succeeded", {"terminated": terminated})


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with Luthier's CRDs."""
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    control_plane.kubectl(
        "wait", "--for=condition=Established", "crd/finetunejobs.luthier.dev", "crd/modeldeployments.luthier.dev"
    )
    return control_plane


@pytest.fixture
def namespace(cluster: ControlPlane) -> Namespace:
    return Namespace(cluster)


@pytest.fixture
def operator_process() -> type[OperatorProcess]:
    """For tests that start operators of their own."""
    return OperatorProcess


@pytest.fixture
def chart_kubeconfig() -> Callable[..., Path]:
    """For tests that start operators of their own."""
    return as_chart


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """A running operator with the chart's rights in the whole cluster, for all tests of a module."""
    folder = tmp_path_factory.mktemp("operator")
    process = OperatorProcess(as_chart(cluster, folder, "luthier"), folder)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        print(process.log)


@pytest.fixture
def own_operator(cluster: ControlPlane, namespace: Namespace, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator with the chart's rights in one test's namespace, and none elsewhere; the test starts it."""
    kubeconfig = as_chart(cluster, tmp_path, namespace.name, f"watchNamespaces={{{namespace.name}}}")
    process = OperatorProcess(kubeconfig, tmp_path, LUTHIER_WATCH_NAMESPACES=namespace.name)
    try:
        yield process
    finally:
        if process._process:
            process.kill()
            print(process.log)


@pytest.fixture(scope="session")
def make_finetunejob() -> Callable[..., Raw]:
    """For tests of several resources in one namespace."""
    return finetunejob


@pytest.fixture(scope="session")
def prepared_message() -> Callable[..., str]:
    """For tests that write termination messages of their own."""
    return prepared


@pytest.fixture
def crowd(namespace: Any, make_finetunejob: Callable[..., Raw], prepared_message: Callable[..., str]) -> Crowd:
    return Crowd(namespace, make_finetunejob, prepared_message)


@pytest.fixture
def no_bug(operator: Any) -> Iterator[None]:
    """Whatever happens, no reconcile fails by a mistake of the operator."""
    yield
    text, trouble = operator.get("/metrics")
    assert trouble is None
    errors = [line for line in text.splitlines() if line.startswith("luthier_reconcile_errors_total{")]
    assert not [line for line in errors if "bug" in line]
