"""kill -9 of the operator at ten moments of a run: the same final state, one Job per stage, one version."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthier_dev.processes import free_ports
from luthier_dev.waiting import wait_until
from luthier_dev.watching import Watched, describe_serving, describe_training
from support.e2e.stories import Site, apply, finetunejob, jobs, modeldeployment, upload

pytestmark = pytest.mark.e2e

Status = dict[str, Any]


class Operator:
    """The operator as a process of this test, so that killing it is followed by a start at once."""

    def __init__(self, site: Site, log: Path) -> None:
        self._site, self._log, self._process = site, log, None
        self.kills: list[str] = []

    def start(self) -> None:
        deployment = self._site.kubectl.get("deployment", "luthier", "--namespace", "luthier-system")
        given = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")},
            **{each["name"]: each.get("value", "") for each in given},
            "LUTHIER_LEASE_NAME": "",  # it is alone, and starts again at once instead of waiting for a Lease to expire
            "KUBECONFIG": str(self._site.kubeconfig),
            "LUTHIER_HTTP_HOST": "127.0.0.1",
            "LUTHIER_HTTP_PORT": str(free_ports(1)[0]),
        }
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "luthier_operator"], env=environment, stdout=log, stderr=log
            )

    def kill(self, moment: str) -> None:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()[-3000:]
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.kills.append(moment)
        self.start()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=30)


@pytest.fixture
def operator(site: Site, tmp_path: Path) -> Iterator[Operator]:
    """The cluster's own operator rests meanwhile: there is one at a time."""
    where = ("deployment/luthier", "--namespace", "luthier-system")
    replicas = site.kubectl.get("deployment", "luthier", "--namespace", "luthier-system")["spec"]["replicas"]
    site.kubectl("scale", *where, "--replicas=0")
    site.kubectl(
        "wait", "pod", "-l", "app.kubernetes.io/name=luthier", "--for=delete", "-n", "luthier-system", "--timeout=60s"
    )
    operator = Operator(site, tmp_path / "operator.log")
    operator.start()
    yield operator
    operator.stop()
    site.kubectl("scale", *where, f"--replicas={replicas}")
    site.kubectl("rollout", "status", *where, "--timeout=120s")


def stage(status: Status) -> str:
    return str((status.get("currentRun") or {}).get("stage", ""))


def step(status: Status) -> int:
    return int((status.get("progress") or {}).get("step", 0))


def test_ten_kills_leave_one_job_per_stage_and_one_version(site: Site, namespace: str, operator: Operator) -> None:
    upload(site)
    folder = f"e2e-{secrets.token_hex(4)}"
    document = finetunejob(site, "killed", folder)
    document["spec"]["hyperparameters"]["epochs"] = 3
    watched = Watched(site.kubectl, namespace, "finetunejob", "killed")
    served = Watched(site.kubectl, namespace, "modeldeployment", "killed")
    apply(site, namespace, document, modeldeployment("killed", {"fineTuneJobRef": {"name": "killed"}}))
    operator.kill("just after apply")

    def has_job(suffix: str) -> Callable[[], bool]:
        return lambda: any(name.endswith(suffix) for name in jobs(site, namespace).values())

    def seen(watch: Watched, test: Callable[[Status], bool]) -> Callable[[], bool]:
        return lambda: test(watch.read().get("status", {}))

    moments: list[tuple[str, Callable[[], bool]]] = [
        ("prepare Job created", has_job("-prepare")),
        ("status says Prepare", seen(watched, lambda s: stage(s) == "Prepare")),
        ("train Job created", has_job("-train")),
        ("status says Train", seen(watched, lambda s: stage(s) == "Train")),
        ("first progress shown", seen(watched, lambda s: step(s) > 0)),
        ("more progress shown", seen(watched, lambda s: step(s) > 4)),
        ("version in status", seen(watched, lambda s: bool(s.get("versions")))),
        ("RayService applied", lambda: bool(site.kubectl.get("rayservices", "-n", namespace)["items"])),
        ("revision starting", seen(served, lambda s: bool(s.get("revisions")))),
    ]
    for moment, reached in moments:
        wait_until(lambda r=reached: None if r() else "not yet", moment, 300, interval_s=0.1)
        operator.kill(moment)

    final = watched.wait_until_ready(300, describe_training)["status"]
    served.wait_until_ready(400, describe_serving)
    assert len(operator.kills) == 10
    assert sorted(name.rsplit("-", 1)[1] for name in jobs(site, namespace).values()) == ["prepare", "train"]
    pods = site.kubectl.get("pods", "--namespace", namespace, "-l", "luthier.dev/finetunejob=killed")["items"]
    assert len(pods) == 2, "a pod ran twice"
    keys = site.s3.list_objects_v2(Bucket="models", Prefix=f"{folder}/killed/versions/")["Contents"]
    manifests = [entry["Key"] for entry in keys if entry["Key"].endswith("/manifest.json")]
    assert len(manifests) == 1 and final["artifact"]["version"] in manifests[0]
    assert len(final["versions"]) == 1 and final.get("lastFailure") is None
    print(json.dumps(operator.kills))
