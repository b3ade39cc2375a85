"""A Job's `suspend` that another controller writes too: its word is respected and named, and no loop comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_operator.model.views import WorkloadView

pytestmark = pytest.mark.unit


def suspended_by(world: Any, stage: str, manager: str = "") -> Any:
    """Let somebody suspend a Job; a webhook does it in the operator's own request, and leaves no name."""
    job = world.job(stage)
    job["spec"]["suspend"] = True
    entry = {"manager": manager or "luthier", "fieldsV1": {"f:spec": {"f:suspend": {}}}}
    job["metadata"]["managedFields"] = [entry]
    return job


@pytest.mark.parametrize("stage", ["prepare", "train"])
@pytest.mark.parametrize("manager", ["kubectl-patch", ""])
def test_a_job_that_somebody_else_suspends_stays_so_and_who_did_is_named(world: Any, stage: str, manager: str) -> None:
    world.settle()
    if stage == "train":
        world.prepare_ends()
        world.settle()
    job = suspended_by(world, stage, manager)
    world.settle()
    assert job["spec"]["suspend"] is True and not world.patches.count(job["metadata"]["name"])
    assert (manager or "Somebody other than Luthier") in world.ready["message"]
    job["spec"]["suspend"] = False
    world.settle()
    assert world.ready["reason"] in ("Preparing", "Training")


def test_kueue_that_manages_jobs_without_a_queue_is_named_with_what_to_set(world: Any) -> None:
    world.settle()
    job = suspended_by(world, "prepare")
    uid = job["metadata"]["uid"]
    world.workloads[uid] = WorkloadView(uid, False, message="LocalQueue default doesn't exist")
    world.settle()
    assert world.ready["reason"] == "Queued" and job["spec"]["suspend"] is True
    assert all(word in world.ready["message"] for word in ("manageJobsWithoutQueueName", "queueName", "doesn't exist"))
    world.edit(suspend=True)
    world.settle()
    world.edit(suspend=False)
    world.settle()
    assert job["spec"]["suspend"] is True, "what Kueue holds is not taken for the user's own wish"


def test_whoever_resumes_what_the_user_suspends_is_named_in_an_event_after_the_second_turn(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    job = world.job("train")
    world.edit(suspend=True)
    for _ in range(5):
        world.settle()
        if world.job("train") is not job:
            break
        job["spec"]["suspend"] = False  # the other writer
        job["metadata"]["managedFields"] = [{"manager": "kueue", "fieldsV1": {"f:spec": {"f:suspend": {}}}}]
    assert world.patches.count(job["metadata"]["name"]) == 2 and world.job("train") is None
    assert world.ready["reason"] == "Suspended" and world.events.count("Suspended") == 2
    world.edit(suspend=False)
    world.settle()
    assert world.job("train")["spec"].get("suspend") in (None, False)


def test_a_job_that_an_older_release_suspended_without_a_mark_is_resumed(world: Any) -> None:
    world.settle()
    world.edit(suspend=True)
    world.settle()
    job = world.job("prepare")
    del job["metadata"]["annotations"]["luthier.dev/suspended"]
    world.settle()
    world.edit(suspend=False)
    world.settle()
    assert job["spec"]["suspend"] is False and "luthier.dev/suspended" not in job["metadata"]["annotations"]
