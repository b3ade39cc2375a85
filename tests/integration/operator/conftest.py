"""The operator as a process of its own, against a real API server; tests play the node by writing pods' status."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier_api.documents import Prepared, Published, Resolved, Result
from luthier_dev import binaries, versions
from luthier_dev.controlplane import ControlPlane
from luthier_dev.paths import REPOSITORY
from luthier_dev.processes import free_ports
from luthier_dev.waiting import wait_until

Raw = dict[str, Any]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def finetunejob(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "luthier.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "reviews"},
        "spec": {
            "model": {"uri": "s3://models/base"},
            "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
            "output": {"name": "sentiment", "uri": "s3://models/", "secretRef": {"name": "s3"}},
            **changes,
        },
    }


def prepared(key: str = "a") -> str:
    resolved = Resolved(
        run_key=sha(key), data_key=sha("data"), model_digest=f"sha256:{sha('m')}", dataset_digest=f"sha256:{sha('d')}"
    )
    document = Prepared(resolved=resolved, train_examples=90, eval_examples=10, labels=2)
    return Result(prepared=document).to_termination_message()


def published(key: str = "a", version: str = "v1", *, reused: bool = False) -> str:
    document = Published(
        run_key=sha(key),
        version=version,
        uri=f"s3://models/sentiment/versions/{version}",
        digest=f"sha256:{sha(version)}",
        size_bytes=1,
        metrics={"eval_f1_macro": "0.91"},
        reused=reused,
    )
    return Result(published=document).to_termination_message()


class OperatorProcess:
    """`python -m luthier_operator`, started, killed and started again."""

    def __init__(self, kubeconfig: Path, folder: Path, **settings: str) -> None:
        (self._port,) = free_ports(1)
        self._log = folder / "operator.log"
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "LUTHIER_TRAINER_IMAGE": "trainer:1",
            "LUTHIER_SERVER_IMAGE": "server:1",
            "LUTHIER_HTTP_HOST": "127.0.0.1",
            "LUTHIER_HTTP_PORT": str(self._port),
            "LUTHIER_PROGRESS_INTERVAL_S": "0.5",
            "LUTHIER_DRAIN_S": "1",
            "LUTHIER_KUBERAY_RETRY_S": "0.5",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "luthier_operator", "--log-format", "text"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_until(lambda: self.get("/readyz")[1], "the operator", timeout_s=60, interval_s=0.05)

    def start_and_listen(self) -> Iterator[str]:
        """Start without waiting, and yield each line of the log as soon as it is written."""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "luthier_operator", "--log-format", "text"],
            env={**self._environment, "LUTHIER_LOG_LEVEL": "DEBUG"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr
        with self._process.stderr as lines, self._log.open("a") as log:
            for line in lines:
                log.write(line)
                yield line

    def get(self, path: str) -> tuple[str, str | None]:
        """Return what the operator's endpoint answers, and what is wrong with that."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=2) as answer:
                return answer.read().decode(), None
        except urllib.error.HTTPError as error:
            with error:
                return "", error.read().decode()
        except OSError as error:
            return "", str(error)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def kill(self) -> None:
        """As the kernel would: at once, in the middle of whatever it does."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=20)


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
        times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
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


def as_chart(cluster: ControlPlane, folder: Path, release: str, *values: str) -> Path:
    """Give a service account the roles that the chart gives it; return the kubeconfig of that service account."""
    kubectl = cluster.kubectl
    templates = ["templates/serviceaccount.yaml", "templates/rbac.yaml"]
    rendered = subprocess.run(
        [
            *(str(binaries.path("helm")), "template", release, str(REPOSITORY / "charts" / "luthier")),
            *(flag for template in templates for flag in ("--show-only", template)),
            *("--namespace", "default", "--kube-version", versions.KUBERNETES),
            *(flag for value in values for flag in ("--set", value)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kubectl("apply", "--server-side", "-f", "-", stdin=rendered)
    admin = yaml.safe_load(cluster.kubeconfig.read_text())
    admin["users"][0]["user"] = {"token": kubectl("create", "token", release, "--duration=2h").strip()}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(admin))
    return path


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
