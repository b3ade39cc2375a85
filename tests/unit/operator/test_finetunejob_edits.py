"""What an edit of a FineTuneJob does to its runs: it replaces, awaits or suspends them, or finds a version."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.exitcodes import ExitCode
from support.operator.stories import published

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("expired", [True, False], ids=["its Jobs have expired", "its Jobs are still there"])
def test_a_reverted_edit_is_answered_at_once_and_without_a_job(world: Any, expired: bool) -> None:
    published(world)
    world.edit(hyperparameters={"learningRate": "0.001"})
    published(world)
    assert world.status["artifact"]["version"] == "v2"
    if expired:
        world.jobs.clear()
        world.pods.clear()
    before = set(world.jobs)
    world.edit(hyperparameters={"learningRate": "0.00002"})
    plan = world.step()
    assert not plan.applies
    assert world.status["artifact"]["version"] == "v1"
    assert [v["version"] for v in world.status["versions"]] == ["v1", "v2"]
    assert (world.ready["reason"], world.events[-1]) == ("Reused", "Reused")
    world.settle()
    assert set(world.jobs) == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda w: w.edit(hyperparameters={"batchSize": 8}), id="another spec"),
        pytest.param(lambda w: w.edit(resources={"limits": {"memory": "16Gi"}}), id="more memory"),
        pytest.param(lambda w: setattr(w, "retry", "once more"), id="the retry annotation"),
    ],
)
def test_a_failed_run_is_tried_again_when_something_that_matters_is_edited(world: Any, change: Any) -> None:
    world.settle()
    first = set(world.jobs)
    world.fails("prepare")
    world.settle()
    change(world)
    world.settle()
    assert set(world.jobs) > first and world.job("prepare")
    assert world.condition("Stalled") is None and "lastFailure" not in world.status


def test_editing_what_does_not_matter_to_the_run_leaves_it_alone(world: Any) -> None:
    world.settle()
    world.edit(ttlSecondsAfterFinished=60)
    plan = world.step()
    assert not plan.applies and not plan.deletes


def test_an_edit_replaces_a_training_and_no_second_gpu_is_asked_for_meanwhile(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    old = world.job("train")["metadata"]["name"]
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.step()
    assert "deletionTimestamp" in world.jobs[old]["metadata"]
    assert "Replaced" in world.events
    world.step()
    world.prepare_ends()
    world.step()
    assert world.live_trains == [old], "the old one still holds its GPU"
    assert world.status["phase"] == "Waiting"
    world.collect()
    world.step()
    assert len(world.live_trains) == 1 and old not in world.live_trains


def test_with_forbid_a_training_may_finish_and_its_version_is_kept(world: Any) -> None:
    world.edit(concurrencyPolicy="Forbid")
    world.settle()
    world.prepare_ends()
    world.settle()
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.settle()
    assert (world.status["phase"], world.ready["reason"]) == ("Waiting", "WaitingForRun")
    world.train_ends()
    world.settle()
    assert [v["version"] for v in world.status["versions"]] == ["v1"]
    assert world.job("prepare") and world.ready["status"] == "False"
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.settle()
    assert [v["version"] for v in world.status["versions"]] == ["v2", "v1"]


def test_suspend_frees_the_gpu_and_the_same_job_goes_on_afterwards(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    job = world.job("train")
    world.pod(job, phase="Running", podIP="198.18.0.9")
    world.edit(suspend=True)
    world.settle()
    assert job["spec"]["suspend"] is True
    assert (world.status["phase"], world.ready["reason"]) == ("Suspended", "Suspended")
    world.edit(suspend=False)
    world.settle()
    assert job["spec"]["suspend"] is False and world.job("train") is job
    assert world.status["phase"] == "Training"


def test_a_resource_that_is_born_suspended_makes_nothing(world: Any) -> None:
    world.edit(suspend=True)
    world.settle()
    assert not world.jobs and world.status["phase"] == "Suspended"


def test_a_version_that_was_published_just_before_an_edit_is_kept_for_its_spec(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.settle()
    assert [each["version"] for each in world.status["versions"]] == ["v1"]
    world.edit(hyperparameters={"learningRate": "0.00002"})
    world.settle()
    assert world.ready["status"] == "True" and len(world.trained) == 1


def test_a_new_run_does_not_begin_with_the_failures_of_the_one_before(world: Any) -> None:
    world.settle()
    world.end(world.job("prepare"), ExitCode.CRASHED)
    world.settle()
    assert world.status["attempts"] == {"failed": 1, "preempted": 0} and world.status["phase"] == "Failed"
    before = world.status["currentRun"]["name"]
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.step(1)
    assert len(world.jobs) == 2 and world.status["currentRun"]["name"] == before, "no status was written after it"
    world.settle()
    assert "attempts" not in world.status and "lastFailure" not in world.status


def test_what_a_replaced_run_publishes_while_the_next_one_begins_is_kept(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.step(2)
    assert len(world.jobs) == 3 and world.status["currentRun"]["stage"] == "Train", "no status was written after it"
    world.train_ends()
    world.step()
    assert [each["version"] for each in world.status["versions"]] == ["v1"]


def test_with_forbid_a_run_that_only_prepares_is_replaced_at_once(world: Any) -> None:
    world.edit(concurrencyPolicy="Forbid")
    world.settle()
    old = world.job("prepare")["metadata"]["name"]
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.step()
    assert "deletionTimestamp" in world.jobs[old]["metadata"] and len(world.jobs) == 2


def test_a_job_that_is_being_deleted_is_not_suspended(world: Any) -> None:
    world.settle()
    world.job("prepare")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.edit(suspend=True)
    assert not world.plan().patches
