"""A crash that comes again at the same place ends the run at the second time; all else is tried backoffLimit times."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason

pytestmark = pytest.mark.unit

HERE = "KeyError at luthier_trainer.data.labels:88"
THERE = "KeyError at luthier_trainer.train:120"


def crash(place: str | None, reason: Reason = Reason.CRASHED) -> str:
    failure = Failure(reason=reason, message="KeyError: 'x'. The pod's log says where.", place=place)
    return Result(failure=failure).to_termination_message()


def begin(world: Any, stage: str, **changes: Any) -> None:
    """Bring the world to a stage whose pods run."""
    world.edit(backoffLimit=3, **changes)
    world.settle()
    if stage == "train":
        world.prepare_ends()
        world.settle()
    world.running(world.job(stage))


def ends(world: Any, stage: str, message: str, code: ExitCode = ExitCode.CRASHED) -> None:
    """Let the Job's pod fail; another one is made only after the operator has looked."""
    world.now += timedelta(seconds=1)
    world.end(world.job(stage), code, message, final=False)
    world.settle()


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_a_crash_that_comes_twice_at_the_same_place_is_not_tried_a_third_time_and_its_pods_stay(
    world: Any, stage: str
) -> None:
    begin(world, stage)
    ends(world, stage, crash(HERE))
    assert world.ready["reason"] == "Retrying"
    ends(world, stage, crash(HERE))
    assert (world.ready["reason"], world.status["phase"]) == ("Crashed", "Failed")
    expected = f"It crashed twice at the same place, {HERE}, so it is not tried a third time. KeyError: 'x'."
    assert world.ready["message"].startswith(expected)
    assert world.status["attempts"]["failed"] == 2 and world.condition("Stalled")
    assert len(world.pods_of(world.job(stage, live=False))) == 2, "their logs say more"
    assert world.plan().empty


def test_a_job_that_is_to_end_is_patched_once_however_long_the_job_controller_takes(world: Any) -> None:
    begin(world, "train")
    ends(world, "train", crash(HERE))
    job = world.job("train")
    world.end(job, ExitCode.CRASHED, crash(HERE), final=False)
    assert [patch.merge for patch in world.step().patches] == [{"spec": {"backoffLimit": 0}}]
    del job["status"]["conditions"]
    assert not world.step().patches and world.ready["reason"] == "Training"


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([crash(HERE), crash(THERE), crash(HERE)], id="other places"),
        pytest.param([crash(None)] * 3, id="a place that nobody knows"),
        pytest.param(["", "", ""], id="no result at all"),
        pytest.param([crash(HERE, Reason.STORAGE_UNAVAILABLE)] * 3, id="storage"),
    ],
)
def test_other_failures_are_tried_as_often_as_the_limit_says(world: Any, messages: list[str]) -> None:
    begin(world, "train")
    for message in messages:
        ends(world, "train", message)
        assert world.ready["reason"] == "Retrying"
        assert not world.patches and world.job("train")


def test_a_disruption_between_two_crashes_at_the_same_place_changes_nothing(world: Any) -> None:
    begin(world, "train")
    ends(world, "train", crash(HERE))
    world.now += timedelta(seconds=1)
    world.disrupt("train")
    world.settle()
    ends(world, "train", crash(HERE))
    assert world.status["phase"] == "Failed" and "twice at the same place" in world.ready["message"]


def test_a_third_pod_that_runs_already_is_left_to_run(world: Any) -> None:
    """The operator was away, or its release did not look."""
    begin(world, "train")
    job = world.job("train")
    for _ in range(2):
        world.now += timedelta(seconds=1)
        world.end(job, ExitCode.CRASHED, crash(HERE), final=False)
    world.running(job)
    world.settle()
    assert world.ready["reason"] == "Training" and not world.patches
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True"


def test_pods_of_several_nodes_that_crash_twice_at_the_same_place_do_not_start_over(world: Any) -> None:
    begin(world, "train", numNodes=2)
    world.end(world.job("train"), ExitCode.CRASHED, crash(HERE))
    world.settle()
    assert world.status["currentRun"]["crashedAt"] == HERE and world.job("train")
    world.disrupt("train")
    world.settle()
    assert world.status["attempts"] == {"failed": 1, "preempted": 1}
    world.end(world.job("train"), ExitCode.CRASHED, crash(HERE))
    world.settle()
    assert (world.ready["reason"], world.status["phase"]) == ("Crashed", "Failed")
    assert world.ready["message"].startswith(f"It crashed twice at the same place, {HERE}, ")
    assert world.status["attempts"] == {"failed": 2, "preempted": 1} and not world.live_trains


def test_a_training_that_was_stuck_in_between_begins_the_row_anew(world: Any) -> None:
    begin(world, "train", progressDeadlineSeconds=60)
    ends(world, "train", crash(HERE))
    world.running(world.job("train"))
    world.settle()
    world.silent_s = 61
    world.now += timedelta(seconds=100)
    world.settle()
    assert world.status["lastFailure"]["reason"] == "Stuck" and "crashedAt" not in world.status["currentRun"]
    world.silent_s = 0
    ends(world, "train", crash(HERE))
    assert world.ready["reason"] == "Retrying" and world.job("train")


def test_a_proxy_beside_the_pods_that_never_ends_hides_no_crash(world: Any) -> None:
    """Kubernetes counts no failure then, and the operator makes another Job."""
    begin(world, "train")
    for _ in range(2):
        job = world.job("train")
        (pod,) = world.running(job)
        world.end_pod(pod, ExitCode.CRASHED, crash(HERE))
        (main,) = pod["status"]["containerStatuses"]
        proxy = {"name": "istio-proxy", "state": {"running": {}}}
        pod["status"] |= {"phase": "Running", "containerStatuses": [{**main, "name": "main"}, proxy]}
        world.settle()
    assert world.status["phase"] == "Failed" and "twice at the same place" in world.ready["message"]
    assert world.status["attempts"]["failed"] == 2
    world.now += timedelta(seconds=15)
    world.settle()
    assert not world.job("train"), "the proxy would hold the GPU"
