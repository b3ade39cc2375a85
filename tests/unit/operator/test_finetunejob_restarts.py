"""A training that begins again: stuck, on several nodes, or in a queue while the user suspends it."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.documents import Failure, ProgressDocument, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from support.operator.stories import to_training, wait

pytestmark = pytest.mark.unit


def says(world: Any, step: int, stage: str = "Training") -> None:
    world.progress = ProgressDocument(stage=stage, step=step, total_steps=200, updated_at="2026-01-01T00:00:00Z")


def restart(world: Any) -> Any:
    """Let the operator start over; return the new Job."""
    old = world.job("train", live=False)["metadata"]["uid"]
    world.settle()
    job = world.job("train")
    assert job and job["metadata"]["uid"] != old
    return job


def test_a_training_without_a_step_for_too_long_is_first_written_down_then_deleted_then_made_again(world: Any) -> None:
    job = to_training(world, progressDeadlineSeconds=600)
    says(world, 45)
    world.step()
    wait(world, 500)
    assert world.plan().empty and world.plan().requeue_after_s == pytest.approx(101, abs=2)
    wait(world, 200)
    plan = world.step()
    assert not plan.deletes and not plan.applies, "what is not written down could be counted twice"
    run = world.status["currentRun"]
    assert (run["givenUp"], run["earlierFailures"], run["stage"]) == (job["metadata"]["uid"], 1, "Prepare")
    assert (world.ready["reason"], world.status["lastFailure"]["reason"]) == ("Retrying", "Stuck")
    assert "no step for 600 s" in world.ready["message"] and "progressDeadlineSeconds" in world.ready["message"]
    plan = world.step()
    assert [delete.uid for delete in plan.deletes] == [job["metadata"]["uid"]] and not plan.applies
    assert world.step().empty, "one Job at a time: the old one still holds its GPU"
    world.collect()
    world.settle()
    again = world.job("train")
    assert again["metadata"]["uid"] != job["metadata"]["uid"] and again["spec"]["backoffLimit"] == 2
    assert world.status["attempts"] == {"failed": 1, "preempted": 0}
    world.progress = None
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True" and len(world.trained) == 1


@pytest.mark.parametrize("change", ["a step", "another stage"])
def test_a_step_or_another_stage_is_progress(world: Any, change: str) -> None:
    to_training(world, progressDeadlineSeconds=600)
    says(world, 45)
    world.step()
    wait(world, 590)
    says(world, *((46,) if change == "a step" else (45, "Evaluating")))
    world.step()
    wait(world, 590)
    assert world.plan().empty


def test_other_figures_that_change_are_no_progress(world: Any) -> None:
    to_training(world, progressDeadlineSeconds=600)
    says(world, 45)
    world.step()
    wait(world, 700)
    world.progress = world.progress.model_copy(update={"epoch": 0.7, "metrics": {"loss": 0.3}})
    world.step()
    assert world.status["currentRun"]["givenUp"]


def test_nobody_is_called_stuck_because_the_operator_was_away(world: Any) -> None:
    """The step that the status remembers is old, and this operator has not heard of the pod yet."""
    to_training(world, progressDeadlineSeconds=600)
    says(world, 45)
    world.step()
    world.progress = None
    wait(world, 7200)
    assert not world.step().deletes and "givenUp" not in world.status["currentRun"]
    says(world, 1200)
    world.settle()
    assert "givenUp" not in world.status["currentRun"]


def test_progress_that_an_older_release_wrote_counts_as_new(world: Any) -> None:
    to_training(world, progressDeadlineSeconds=600)
    says(world, 45)
    world.step()
    del world.status["progress"]["changedAt"]
    wait(world, 7200)
    world.settle()
    assert "givenUp" not in world.status["currentRun"] and world.status["progress"]["changedAt"]
    wait(world, 601)
    world.step()
    assert world.status["currentRun"]["givenUp"]


def test_a_pod_that_never_answers_is_stuck_after_it_was_asked_for_a_while(world: Any) -> None:
    to_training(world, progressDeadlineSeconds=600)
    wait(world, 700)
    world.silent_s = 30
    plan = world.plan()
    assert "givenUp" not in str(plan.status)
    assert plan.requeue_after_s and plan.requeue_after_s >= 1, "it would be looked at without a pause"
    world.silent_s = 61
    world.step()
    assert (
        world.status["lastFailure"]["reason"] == "Stuck" and "NetworkPolicy" in world.status["lastFailure"]["message"]
    )


def test_a_pod_that_does_not_run_is_never_called_stuck(world: Any) -> None:
    job = to_training(world, progressDeadlineSeconds=600)
    says(world, 45)
    world.step()
    for pod in world.pods_of(job):
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    wait(world, 700)
    assert "givenUp" not in str(world.plan().status)


def test_being_stuck_too_often_fails_the_run_and_frees_its_gpu(world: Any) -> None:
    to_training(world, progressDeadlineSeconds=600, backoffLimit=1)
    for _ in range(2):
        says(world, 45)
        world.step()
        wait(world, 700)
        world.settle()
        if world.status["phase"] != "Failed":
            world.running(world.job("train"))
    assert (world.ready["reason"], world.status["phase"]) == ("Stuck", "Failed")
    assert world.ready["message"].startswith("2 attempts failed, the last: ")
    assert not world.live_trains, "a stuck pod would hold its GPU for ever"
    assert world.condition("Stalled")


def test_failures_of_all_its_jobs_count_towards_the_limit(world: Any) -> None:
    job = to_training(world, progressDeadlineSeconds=600, backoffLimit=3)
    world.end(job, ExitCode.CRASHED, final=False)
    world.running(job)
    says(world, 1)
    world.step()
    wait(world, 700)
    again = restart(world)
    assert world.status["attempts"]["failed"] == 2 and again["spec"]["backoffLimit"] == 1
    world.progress = None
    world.end(again, ExitCode.CRASHED, final=False)
    world.end(again, ExitCode.CRASHED, final=False)
    world.finish(again, "Failed", "BackoffLimitExceeded")
    world.settle()
    assert (world.ready["reason"], world.status["attempts"]["failed"]) == ("Crashed", 4)
    assert world.ready["message"].startswith("4 attempts failed")


def test_a_job_that_publishes_after_it_was_given_up_is_believed(world: Any) -> None:
    to_training(world, progressDeadlineSeconds=600)
    says(world, 200)
    world.step()
    wait(world, 700)
    world.step()
    world.train_ends()
    world.progress = None
    world.settle()
    assert world.ready["status"] == "True" and len(world.trained) == 1


def test_a_rival_that_is_stuck_is_not_waited_for(world: Any) -> None:
    job = to_training(world, progressDeadlineSeconds=600, concurrencyPolicy="Forbid")
    world.edit(hyperparameters={"learningRate": "0.001"})
    says(world, 45)
    world.settle()
    assert world.ready["reason"] == "WaitingForRun"
    wait(world, 700)
    world.settle()
    assert job["metadata"]["name"] not in world.jobs and world.job("prepare")


# Several nodes


def vanish(world: Any, exit_code: int) -> None:
    """End a pod that was deleted: all of them may be gone before the operator looks, and only the Job's words left."""
    job = world.job("train")
    world.end(job, exit_code)
    (condition,) = job["status"]["conditions"]
    condition["message"] = f"Container train for pod t/p-1 failed with exit code {exit_code} matching FailJob rule"
    for pod in world.pods_of(job):
        del world.pods[pod["metadata"]["name"]]


def test_the_pods_of_several_nodes_are_made_after_the_service_by_which_they_meet(world: Any) -> None:
    world.edit(numNodes=2)
    world.settle()
    assert not world.services
    world.prepare_ends()
    plan = world.step()
    assert [apply.manifest["kind"] for apply in plan.applies] == ["Service", "Job"]
    world.settle()
    (service,) = world.services
    job = world.job("train")
    assert job["spec"]["completions"] == 2 and job["spec"]["template"]["spec"]["subdomain"] == service


@pytest.mark.parametrize(
    ("lose", "attempts", "reason"),
    [
        pytest.param(lambda w: w.disrupt("train"), {"failed": 0, "preempted": 1}, "Evicted", id="one is evicted"),
        pytest.param(
            lambda w: w.end(w.job("train"), ExitCode.CRASHED),
            {"failed": 1, "preempted": 0},
            "Crashed",
            id="one crashes",
        ),
        pytest.param(lambda w: vanish(w, ExitCode.PREEMPTED), {"failed": 0, "preempted": 1}, "Preempted", id="asked"),
        pytest.param(lambda w: vanish(w, ExitCode.CRASHED), {"failed": 1, "preempted": 0}, "Crashed", id="gone"),
    ],
)
def test_when_one_pod_is_lost_all_start_over_from_the_checkpoint_counted_by_the_cause(
    world: Any, lose: Any, attempts: dict[str, int], reason: str
) -> None:
    to_training(world, numNodes=3)
    key = world.status["currentRun"]["runKey"]
    lose(world)
    plan = world.step()
    assert not plan.deletes and not plan.applies and world.status["currentRun"]["givenUp"]
    assert (world.ready["reason"], world.status["lastFailure"]["reason"]) == ("Retrying", reason)
    again = restart(world)
    assert world.status["attempts"] == attempts
    assert again["metadata"]["annotations"]["luthier.dev/run-key"] == key
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True" and len(world.trained) == 1


def test_pods_of_several_nodes_that_crash_too_often_fail_the_run(world: Any) -> None:
    to_training(world, numNodes=2, backoffLimit=1)
    world.end(world.job("train"), ExitCode.CRASHED)
    again = restart(world)
    world.end(again, ExitCode.CRASHED)
    world.settle()
    assert (world.ready["reason"], world.status["phase"]) == ("Crashed", "Failed")
    assert world.ready["message"].startswith("2 attempts failed")
    assert world.status["attempts"] == {"failed": 2, "preempted": 0}


def test_what_would_only_come_again_is_not_tried_again_on_several_nodes_either(world: Any) -> None:
    to_training(world, numNodes=2)
    world.end(world.job("train"), ExitCode.GPU_OUT_OF_MEMORY)
    world.settle()
    assert (world.ready["reason"], world.status["phase"]) == ("GpuOutOfMemory", "Failed")
    assert world.status["attempts"] == {"failed": 1, "preempted": 0} and not world.live_trains


def test_suspending_several_nodes_deletes_their_job_without_counting_and_resuming_makes_it_again(world: Any) -> None:
    job = to_training(world, numNodes=2)
    world.edit(suspend=True)
    plan = world.step()
    assert not plan.deletes and not plan.patches and world.status["currentRun"]["givenUp"]
    world.settle()
    assert world.ready["reason"] == "Suspended" and not world.job("train", live=False)
    world.edit(suspend=False)
    world.settle()
    assert world.job("train")["metadata"]["name"] == job["metadata"]["name"]
    assert "attempts" not in world.status and "lastFailure" not in world.status


# Queues


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_suspending_a_queued_run_deletes_its_job_and_never_writes_its_suspend(world: Any, stage: str) -> None:
    world.edit(queueName="gpus")
    world.settle()
    if stage == "train":
        world.job("prepare")["spec"]["suspend"] = False
        world.prepare_ends()
        world.settle()
    assert world.job(stage)["spec"]["suspend"] is True
    for admitted in (False, True):
        world.job(stage)["spec"]["suspend"] = not admitted
        plan = world.step()
        assert not plan.patches
    world.edit(suspend=True)
    for _ in range(4):
        assert not world.step().patches
    world.settle()
    assert not world.job(stage) and world.ready["reason"] == "Suspended"
    world.edit(suspend=False)
    world.settle()
    assert world.job(stage)["spec"]["suspend"] is True
    assert "attempts" not in world.status


KEYS_EXPIRED = Result(
    failure=Failure(reason=Reason.CREDENTIALS_EXPIRED, message="The keys have expired; put new ones into the Secret.")
).to_termination_message()


def test_keys_that_have_expired_are_no_failure_and_the_next_pod_tries_the_secret_again(world: Any) -> None:
    job = to_training(world, backoffLimit=0)
    for _ in range(3):
        world.end(job, ExitCode.CREDENTIALS_EXPIRED, KEYS_EXPIRED, final=False)
        world.settle()
        assert (world.ready["reason"], world.status["phase"]) == ("Retrying", "Training")
        assert world.ready["message"] == "Trying again after: The keys have expired; put new ones into the Secret."
        world.running(job)
        wait(world, 1)
    assert world.status["attempts"] == {"failed": 0, "preempted": 3}
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True"


def test_pods_of_several_nodes_whose_keys_have_expired_start_over_after_a_minute_and_without_counting(
    world: Any,
) -> None:
    job = to_training(world, numNodes=2, backoffLimit=0)
    world.end(job, ExitCode.CREDENTIALS_EXPIRED, KEYS_EXPIRED)
    job["status"]["conditions"][0]["lastTransitionTime"] = f"{world.now:%Y-%m-%dT%H:%M:%SZ}"
    world.step()
    assert world.job("train", live=False)["metadata"]["uid"] == job["metadata"]["uid"], "nothing is hammered"
    assert world.ready["message"].startswith("Trying again after: The keys have expired")
    assert 50 < world.plan().requeue_after_s <= 60
    wait(world, 61)
    restart(world)
    assert world.status["attempts"] == {"failed": 0, "preempted": 1}
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True" and len(world.trained) == 1


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_pod_that_may_lack_its_secret_is_asked_about_and_one_with_nothing_to_mount_is_not(
    world: Any, reason: str
) -> None:
    def asks() -> float | None:
        found: float | None = world.plan().requeue_after_s
        return found

    world.settle()
    made = world.pod(
        world.job("prepare"), phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": reason}}}]
    )
    world.settle()
    assert asks() is None, "no node has it yet"
    made["spec"] = {**made["spec"], "nodeName": "n1"}
    assert 0 < (asks() or 0) <= 10
    world.pod_events = {
        world.job("prepare")["metadata"]["uid"]: 'MountVolume.SetUp failed for volume "x" : secret "s3" not found'
    }
    world.settle()
    assert world.ready["reason"] == "MissingSecret"
