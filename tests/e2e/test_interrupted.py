"""A training that loses its pod, and is then suspended, goes on from where it was, on a real cluster.

Checkpoints between are out of reach here (`everySteps` is larger than the run), so each one that is found was made in
the grace period of a pod that was told to stop.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from stories import Site, apply, finetunejob, jobs, upload

from luthier_api.finetunejob import FineTuneJobStatus
from luthier_dev.waiting import wait_until
from luthier_dev.watching import Watched, describe_training

pytestmark = pytest.mark.e2e

NAME = "interrupted"
EPOCHS = 25  # of 6 steps: long enough to be met in the middle twice


class Run:
    """The FineTuneJob of this story, seen from outside."""

    def __init__(self, site: Site, namespace: str, folder: str) -> None:
        self.site, self.namespace, self.folder = site, namespace, folder
        self.watched = Watched(site.kubectl, namespace, "finetunejob", NAME)

    @property
    def status(self) -> FineTuneJobStatus:
        return FineTuneJobStatus.model_validate(self.watched.read().get("status", {}))

    @property
    def pods(self) -> list[str]:
        selector = f"luthier.dev/finetunejob={NAME},app.kubernetes.io/component=train"
        items = self.site.kubectl.get("pods", "--namespace", self.namespace, "-l", selector)["items"]
        return [item["metadata"]["name"] for item in items]

    def objects(self, below: str) -> list[str]:
        """Keys below a folder of the model."""
        prefix = f"{self.folder}/{NAME}/{below}/"
        return [
            entry["Key"] for entry in self.site.s3.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
        ]

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints that are whole."""
        return sorted(int(key.split("/")[-2]) for key in self.objects("checkpoints") if key.endswith("/manifest.json"))

    def await_step(self, least: int) -> None:
        def missing() -> str | None:
            progress = self.status.progress
            return None if progress and progress.step >= least else f"at step {progress.step if progress else '-'}"

        wait_until(missing, f"step {least}", 400, interval_s=0.5)

    def await_resumed_after(self, least: int) -> int:
        """Wait until the status tells of a pod that began at a checkpoint; return its step."""

        steps: list[int] = []

        def missing() -> str | None:
            checkpoint = self.status.checkpoint
            if checkpoint is None or checkpoint.resumed_from is None or checkpoint.resumed_from < least:
                return str(checkpoint)
            steps.append(checkpoint.resumed_from)
            return None

        wait_until(missing, "the resumed run", 300, interval_s=0.5)
        return steps[0]

    def suspend(self, wanted: bool) -> None:
        patch = json.dumps({"spec": {"suspend": wanted}})
        where = ("--namespace", self.namespace, "--type=merge", "-p", patch)
        self.site.kubectl("patch", "finetunejob", NAME, *where)


def long_run(site: Site, folder: str) -> dict[str, Any]:
    document = finetunejob(site, NAME, folder, checkpoint={"everySteps": 100_000})
    document["spec"]["hyperparameters"]["epochs"] = EPOCHS
    return document


def test_a_training_that_is_stopped_twice_goes_on_and_publishes_one_version(site: Site, namespace: str) -> None:
    upload(site)
    folder = f"e2e-{secrets.token_hex(4)}"
    run = Run(site, namespace, folder)
    apply(site, namespace, long_run(site, folder))

    run.await_step(5)
    assert run.checkpoints() == []
    (first,) = run.pods
    site.kubectl("delete", "pod", first, "--namespace", namespace, "--wait=true", timeout_s=180)
    after_loss = run.await_resumed_after(5)
    assert run.checkpoints() == [after_loss]
    status = run.status
    assert status.current_run and status.checkpoint
    assert status.checkpoint.uri == f"s3://models/{folder}/{NAME}/checkpoints/{status.current_run.run_key}/{after_loss}"

    run.await_step(after_loss + 5)
    run.suspend(True)
    wait_until(lambda: f"{run.pods} are there" if run.pods else None, "the pod to go", 180)
    assert run.status.phase == "Suspended"
    stopped_at = run.checkpoints()[-1]
    assert stopped_at >= after_loss + 5
    run.suspend(False)
    assert run.await_resumed_after(after_loss + 1) == stopped_at

    run.watched.wait_until_ready(600, describe_training)
    manifests = [key for key in run.objects("versions") if key.endswith("/manifest.json")]
    assert len(manifests) == 1 and len(run.status.versions) == 1
    assert run.checkpoints() == [] and run.status.checkpoint is None
    (train,) = [name for name in jobs(site, namespace).values() if name.endswith("-train")]
    counted = site.kubectl.get("job", train, "--namespace", namespace)["status"].get("failed", 0)
    assert counted == 0, "being stopped is no failure"
