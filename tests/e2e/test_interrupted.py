"""A training that loses its pod, and is then suspended, goes on from where it was, on a real cluster.

Checkpoints between are out of reach here (`everySteps` is larger than the run), so each one that is found was made in
the grace period of a pod that was told to stop.
"""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from luthier_dev.waiting import wait_until
from support.e2e.stories import Site, Training, apply, finetunejob, jobs, upload

pytestmark = pytest.mark.e2e

NAME = "interrupted"
EPOCHS = 18  # of 6 steps: long enough to be met in the middle twice


def long_run(site: Site, folder: str) -> dict[str, Any]:
    document = finetunejob(site, NAME, folder, checkpoint={"everySteps": 100_000})
    document["spec"]["hyperparameters"]["epochs"] = EPOCHS
    return document


def test_a_training_that_is_stopped_twice_goes_on_and_publishes_one_version(site: Site, namespace: str) -> None:
    upload(site)
    folder = f"e2e-{secrets.token_hex(4)}"
    run = Training(site, namespace, NAME, folder)
    apply(site, namespace, long_run(site, folder))

    run.until_step(5)
    assert run.checkpoints() == []
    (first,) = run.pods
    site.kubectl("delete", "pod", first, "--namespace", namespace, "--wait=true", timeout_s=180)
    after_loss = run.until_resumed(5)
    assert run.checkpoints() == [after_loss]
    status = run.status
    assert status.current_run and status.checkpoint
    assert status.checkpoint.uri == f"s3://models/{folder}/{NAME}/checkpoints/{status.current_run.run_key}/{after_loss}"

    run.until_step(after_loss + 5)
    run.suspend(True)
    wait_until(lambda: f"{run.pods} are there" if run.pods else None, "the pod to go", 180)
    assert run.status.phase == "Suspended"
    stopped_at = run.checkpoints()[-1]
    assert stopped_at >= after_loss + 5
    run.suspend(False)
    assert run.until_resumed(after_loss + 1) == stopped_at

    final = run.until_published()
    assert run.checkpoints() == [] and final.checkpoint is None
    (train,) = [name for name in jobs(site, namespace).values() if name.endswith("-train")]
    counted = site.kubectl.get("job", train, "--namespace", namespace)["status"].get("failed", 0)
    assert counted == 0, "being stopped is no failure"
