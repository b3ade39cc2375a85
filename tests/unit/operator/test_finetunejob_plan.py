"""The life of a FineTuneJob: what is done in which situation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luthier_api.documents import Result
from luthier_api.exitcodes import ExitCode
from luthier_api.finetunejob import FineTuneJobStatus
from luthier_operator.model.actions import Plan
from luthier_operator.plan.finetunejob.runs import MAX_VERSIONS

pytestmark = pytest.mark.unit


def test_a_run_prepares_then_trains_then_publishes(world: Any) -> None:
    world.settle()
    assert world.job("prepare") and not world.job("train")
    assert (world.status["phase"], world.ready["reason"]) == ("Preparing", "Preparing")
    world.prepare_ends()
    world.settle()
    assert world.job("train")
    assert (world.status["phase"], world.status["currentRun"]["stage"]) == ("Training", "Train")
    world.train_ends()
    world.settle()
    assert (world.status["phase"], world.ready["status"]) == ("Succeeded", "True")
    assert world.status["artifact"]["version"] == "v1"
    assert world.condition("Reconciling") is None and world.condition("Stalled") is None
    assert world.events == ["Preparing", "Training", "Published"]


def test_what_prepare_found_is_in_the_status_although_the_operator_ended_after_it_made_the_training(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.step(cut=1)
    assert world.job("train") and world.status["currentRun"]["stage"] == "Prepare"
    world.train_ends()
    world.settle()
    assert world.status["phase"] == "Succeeded"
    assert world.status["currentRun"]["dataKey"]


def test_what_prepare_finds_odd_stands_in_the_status_of_the_run_and_in_one_event(world: Any) -> None:
    world.settle()
    world.prepare_ends("evalSteps = 500 is too many.", "x\x1b[2J" + "y" * 295)
    world.settle()
    first, second = world.status["warnings"]
    assert first == "evalSteps = 500 is too many."
    assert second.startswith("x [2Jyyy") and len(second) == 299, "bounded, and nothing that moves a cursor"
    world.train_ends()
    world.settle()
    assert world.status["phase"] == "Succeeded" and len(world.status["warnings"]) == 2
    assert world.events == ["Preparing", "PreparedWithWarnings", "Training", "Published"]
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.settle()
    assert not world.status.get("warnings"), "of another run"


def test_warnings_are_in_the_status_although_the_operator_ended_after_it_made_the_training(world: Any) -> None:
    world.settle()
    world.prepare_ends("Odd.")
    world.step(cut=1)
    assert world.job("train") and not world.status.get("warnings")
    world.settle()
    assert world.status["warnings"] == ["Odd."]


def test_a_plan_applied_to_its_own_result_is_empty(world: Any) -> None:
    for act in (lambda: None, world.prepare_ends, world.train_ends):
        act()
        world.settle()
        assert world.plan().empty


def test_a_version_that_prepare_finds_is_used_without_training(world: Any) -> None:
    world.registry[world.key()] = "v7"
    world.settle()
    world.prepare_ends()
    world.settle()
    assert world.status["artifact"]["version"] == "v7"
    assert world.ready["reason"] == "Reused"
    assert not world.job("train", live=False)


def test_a_failed_run_says_why_and_is_not_tried_again_by_itself(world: Any) -> None:
    world.settle()
    world.fails("prepare", message="Column 'label' is not in the file.")
    world.settle()
    stalled = world.condition("Stalled")
    assert stalled["status"] == "True"
    assert stalled["reason"] == "InvalidData" and stalled["message"].startswith("Column 'label' is not in the file. ")
    assert "luthier.dev/retry" in stalled["message"]
    assert world.status["phase"] == "Failed"
    world.jobs.clear()  # their time to live is over
    world.pods.clear()
    assert world.plan().empty


def test_jobs_expire_only_after_their_outcome_is_in_the_status(world: Any) -> None:
    world.edit(ttlSecondsAfterFinished=0)
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends()
    plan = world.step()
    assert plan.status and not plan.patches
    plan = world.step()
    assert {p.name: p.merge for p in plan.patches} == {
        name: {"spec": {"ttlSecondsAfterFinished": 0}} for name in world.jobs
    }


def test_a_train_job_that_somebody_deletes_is_looked_up_before_anything_is_trained_again(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.remove(world.job("train", live=False)["metadata"]["name"])  # before its result was seen
    plan = world.plan()
    assert plan.assumes_gone and not plan.applies
    world.settle()
    assert world.job("prepare") and not world.job("train")
    world.prepare_ends()
    world.settle()
    assert world.status["artifact"]["version"] == "v1" and len(world.trained) == 1


def test_a_result_that_went_with_its_pod_is_looked_up_again(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.pods.clear()
    world.settle()
    world.prepare_ends()
    world.settle()
    assert world.status["artifact"]["version"] == "v1" and len(world.trained) == 1


def test_a_version_that_misses_a_gate_is_published_and_not_ready(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends(promotable=False)
    world.settle()
    assert (world.ready["status"], world.ready["reason"]) == ("False", "GateFailed")
    assert "not GTE 0.95" in world.ready["message"]
    assert world.condition("Published")["status"] == "True" and world.condition("Stalled")
    assert world.status["artifact"]["promotable"] is False


def test_a_job_of_an_earlier_resource_of_the_same_name_is_waited_for(world: Any) -> None:
    world.settle()
    world.uid = "uid-2"
    world.status, world.generation = {}, 1
    for job in world.jobs.values():
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    plan = world.step()
    assert not plan.applies and plan.requeue_after_s
    assert world.status["phase"] == "Waiting"
    world.collect()
    world.settle()
    assert world.job("prepare")["metadata"]["ownerReferences"][0]["uid"] == "uid-2"


def test_a_resource_that_is_being_deleted_is_left_to_the_garbage_collector(world: Any) -> None:
    world.deleting = True
    assert world.plan().empty


def test_a_new_default_image_neither_stops_nor_starts_a_run(world: Any) -> None:
    world.settle()
    world.defaults = replace(world.defaults, trainer_image="trainer:2")
    assert world.plan().empty
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.settle()
    world.defaults = replace(world.defaults, trainer_image="trainer:3")
    assert world.plan().empty


def test_a_result_of_another_run_is_refused(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    job = world.job("train")
    world.train_ends()
    job["metadata"]["annotations"]["luthier.dev/run-key"] = "0" * 64
    world.settle()
    assert world.ready["reason"] == "IntegrityError" and not world.status["versions"]


def test_a_train_pod_that_claims_to_have_prepared_is_refused(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    prepared = next(iter(world.pods.values()))["status"]["containerStatuses"][0]["state"]["terminated"]["message"]
    assert Result.from_json(prepared).prepared
    world.end(world.job("train"), 0, prepared)
    world.settle()
    assert world.status["phase"] == "Failed" and not world.status["versions"]


def test_a_failure_that_would_only_come_again_is_never_called_a_retry(world: Any) -> None:
    """The pod has failed a moment before the Job controller says that the Job has."""
    world.settle()
    world.end(world.job("prepare"), ExitCode.INVALID_DATA, final=False)
    world.settle()
    assert (world.ready["reason"], world.status["lastFailure"]["reason"]) == ("Preparing", "InvalidData")


def test_attempts_are_counted_and_the_last_failure_is_said_while_the_job_tries_again(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.end(world.job("train"), ExitCode.CRASHED, final=False)
    world.settle()
    assert (world.status["phase"], world.ready["reason"]) == ("Training", "Retrying")
    assert world.status["attempts"] == {"failed": 1, "preempted": 0}
    assert world.status["lastFailure"]["exitCode"] == 1
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True" and "lastFailure" not in world.status


def test_a_spec_too_large_for_a_run_document_says_so(world: Any) -> None:
    world.edit(labels=[f"{number:04}" + "x" * 250 for number in range(1000)])
    world.settle()
    assert (world.ready["reason"], world.status["phase"]) == ("InvalidSpec", "Failed")
    assert "200 KiB" in world.ready["message"] and not world.jobs


def test_the_status_remembers_so_many_versions_as_it_may_hold_and_forgets_the_oldest(world: Any) -> None:
    for number in range(MAX_VERSIONS + 2):
        world.edit(hyperparameters={"learningRate": f"{number + 1}e-7"})
        world.settle()
        world.prepare_ends()
        world.settle()
        world.train_ends()
        world.settle()
        for name in list(world.jobs):
            world.remove(name)
    FineTuneJobStatus.model_validate(world.status)
    kept = [each["version"] for each in world.status["versions"]]
    assert kept == [f"v{number}" for number in range(MAX_VERSIONS + 2, 2, -1)]


def test_the_most_versions_that_are_remembered_are_what_the_schema_allows() -> None:
    schema = FineTuneJobStatus.model_json_schema()
    assert schema["properties"]["versions"]["maxItems"] == MAX_VERSIONS


def test_what_a_job_that_is_being_deleted_found_is_not_trained_on(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.job("prepare", live=False)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not world.plan().applies


def test_once_the_next_pod_runs_the_failure_of_the_last_one_is_no_longer_the_message(world: Any) -> None:
    world.settle()
    world.end(world.job("prepare"), ExitCode.CRASHED, final=False)
    world.settle()
    assert world.ready["reason"] == "Retrying"
    world.pod(world.job("prepare"), phase="Running", podIP="198.18.0.9")
    world.settle()
    assert world.ready["reason"] == "Preparing"


def test_a_run_that_is_looked_up_again_keeps_the_time_it_began(world: Any) -> None:
    world.settle()
    began = world.status["currentRun"]["startedAt"]
    world.prepare_ends()
    world.settle()
    world.remove(world.job("train")["metadata"]["name"])
    world.settle()
    assert world.job("prepare") and world.status["currentRun"]["startedAt"] == began


def test_a_plan_that_writes_only_a_status_is_not_empty() -> None:
    assert Plan().empty and Plan(requeue_after_s=1.0).empty
    assert not Plan(status={"phase": "Training"}).empty and not Plan(release=True).empty
