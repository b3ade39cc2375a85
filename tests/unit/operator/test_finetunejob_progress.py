"""What a training tells while it goes on, its progress and its checkpoints, and how long the status keeps that."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.documents import ProgressDocument
from luthier_api.exitcodes import ExitCode
from luthier_operator.model.timestamps import duration
from support.operator.stories import to_training

pytestmark = pytest.mark.unit


def document(**fields: Any) -> ProgressDocument:
    return ProgressDocument(**{"stage": "Training", "total_steps": 200, "updated_at": "2026-01-01T00:00:00Z", **fields})


@pytest.mark.parametrize("step", [0, 45])
def test_progress_is_shown_while_training_and_kept_until_the_next_answer(world: Any, step: int) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.pod(world.job("train"), phase="Running", podIP="198.18.0.9")
    world.progress = ProgressDocument(
        stage="Training", step=step, total_steps=200, epoch=0.5, eta_seconds=12.4, updated_at="2026-01-01T00:00:00Z"
    )
    world.step()
    shown = world.status["progress"]
    assert (shown["percent"], shown["eta"], shown["etaSeconds"], shown["step"]) == (step // 2, "12s", 12, step)
    message = world.ready["message"]
    world.progress = None
    plan = world.step()
    assert plan.empty and world.status["progress"] == shown and world.ready["message"] == message
    world.train_ends()
    world.settle()
    assert "progress" not in world.status


def test_speed_and_memory_are_shown_in_few_digits(world: Any) -> None:
    to_training(world)
    world.progress = document(examples_per_second=1234.56, tokens_per_second=98765.4, gpu_memory_bytes=3 * 2**30)
    world.step()
    shown = world.status["progress"]
    assert (shown["examplesPerSecond"], shown["tokensPerSecond"]) == ("1230", "98800")
    assert shown["gpuMemoryBytes"] == 3 * 2**30


def test_the_status_shows_the_newest_checkpoint_until_the_version_is_there(world: Any) -> None:
    to_training(world)
    world.progress = document(step=30)
    world.step()
    assert "checkpoint" not in world.status
    world.progress = document(step=90, checkpoint_step=75)
    world.step()
    key = world.status["currentRun"]["runKey"]
    assert world.status["checkpoint"] == {"step": 75, "uri": f"s3://models/sentiment/checkpoints/{key}/75"}
    world.progress = None
    world.end(world.job("train"), ExitCode.PREEMPTED, final=False)
    world.step()
    assert world.status["checkpoint"]["step"] == 75, "while no pod answers, what is known stays"
    world.pod(world.job("train"), phase="Running", podIP="198.18.0.10")
    world.progress = document(stage="Downloading")
    world.step()
    assert world.status["checkpoint"]["step"] == 75
    world.progress = document(step=76, resumed_from_step=75)
    world.step()
    assert (world.status["checkpoint"]["step"], world.status["checkpoint"]["resumedFrom"]) == (75, 75)
    world.progress = None
    world.train_ends()
    world.settle()
    assert "checkpoint" not in world.status, "a published run leaves none in storage"


def test_a_run_that_fails_keeps_its_checkpoint_for_the_next_try_and_another_run_begins_without(world: Any) -> None:
    to_training(world)
    world.progress = document(step=90, checkpoint_step=75)
    world.step()
    world.progress = None
    world.fails("train", ExitCode.LOSS_NOT_FINITE)
    world.settle()
    assert (world.status["phase"], world.status["checkpoint"]["step"]) == ("Failed", 75)
    world.edit(hyperparameters={"learningRate": "1e-5"})
    world.settle()
    assert "checkpoint" not in world.status


def test_suspending_a_training_keeps_its_job_its_run_and_its_checkpoint(world: Any) -> None:
    to_training(world)
    world.progress = document(step=90, checkpoint_step=75)
    world.step()
    before = world.job("train")
    text = before["spec"]["template"]["metadata"]["annotations"]["luthier.dev/run-document"]
    world.progress = None
    world.edit(suspend=True)
    world.settle()
    assert (world.status["phase"], world.status["checkpoint"]["step"]) == ("Suspended", 75)
    assert not [pod for pod in world.pods if "train" in pod]
    world.edit(suspend=False)
    world.settle()
    after = world.job("train")
    assert after["spec"]["suspend"] is False and after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["template"]["metadata"]["annotations"]["luthier.dev/run-document"] == text
    world.pod(after, phase="Running", podIP="198.18.0.10")
    world.progress = document(step=76, resumed_from_step=75)
    world.step()
    assert world.status["checkpoint"]["resumedFrom"] == 75


def test_an_edit_of_how_checkpoints_are_made_goes_on_with_the_same_run_key(world: Any) -> None:
    to_training(world)
    key, name = world.status["currentRun"]["runKey"], world.status["currentRun"]["name"]
    world.edit(checkpoint={"everySteps": 5})
    world.settle()
    world.prepare_ends()
    world.settle()
    assert world.status["currentRun"]["name"] != name, "the pods are given another document"
    assert world.job("train")["metadata"]["annotations"]["luthier.dev/run-key"] == key


def test_an_answer_that_differs_only_in_speed_and_time_left_writes_nothing(world: Any) -> None:
    to_training(world)
    world.progress = document(step=30, examples_per_second=10.0, eta_seconds=60)
    world.step()
    world.progress = document(step=30, examples_per_second=11.0, eta_seconds=50)
    assert world.step().status is None
    world.progress = document(step=31, examples_per_second=11.0, eta_seconds=50)
    assert world.step().status is not None


def test_a_run_that_was_resumed_shows_the_checkpoint_that_it_has_made_since(world: Any) -> None:
    to_training(world)
    world.progress = document(step=90, checkpoint_step=75, resumed_from_step=50)
    world.step()
    key = world.status["currentRun"]["runKey"]
    expected = {"step": 75, "uri": f"s3://models/sentiment/checkpoints/{key}/75", "resumedFrom": 50}
    assert world.status["checkpoint"] == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59, "59s"), (250, "4m10s"), (3600, "1h"), (7500, "2h5m"), (273600, "3d4h")]
)
def test_time_left_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_sentence_says_how_long_it_takes_and_is_not_written_again_before_another_step(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.running(world.job("train"))
    at = {"updated_at": "2026-01-01T00:00:00Z"}
    world.progress = ProgressDocument(stage="Training", step=5, total_steps=69, eta_seconds=250, **at)
    world.settle()
    assert world.ready["message"] == "Training: step 5 of 69, about 4m10s left."
    world.progress = ProgressDocument(stage="Training", step=5, total_steps=69, eta_seconds=240, **at)
    assert world.plan().empty


EXPIRED = "Checkpoints cannot be stored: The keys for s3://m/x have expired (ExpiredToken); renew them in the Secret."


def test_checkpoints_that_cannot_be_stored_stand_in_a_condition_and_one_event_until_one_is_stored(world: Any) -> None:
    to_training(world)
    world.progress = document(step=90, checkpoint_step=75)
    world.step()
    assert world.condition("StorageFailing") is None
    for step in (100, 110):
        world.progress = document(step=step, checkpoint_step=75, storage_failure=EXPIRED)
        world.step()
    found = world.condition("StorageFailing")
    assert (found["status"], found["reason"]) == ("True", "StorageFailing")
    assert found["message"] == (
        f"{EXPIRED} It is tried again; if the pod is lost before that succeeds, the next one continues from step 75."
    )
    assert (world.ready["reason"], world.events.count("StorageFailing")) == ("Training", 1), "the training goes on"
    world.progress = None
    world.step()
    assert world.condition("StorageFailing") == found, "while no pod answers, what is known stays"
    world.progress = document(step=120, checkpoint_step=120)
    world.step()
    assert world.condition("StorageFailing") is None


def test_a_run_that_waits_for_storage_says_so_and_is_over_with_the_run(world: Any) -> None:
    to_training(world)
    world.progress = document(stage="Uploading", step=200, storage_failure="The run waits for storage: x")
    world.step()
    message = world.condition("StorageFailing")["message"]
    assert message.startswith("The run waits for storage: x. ") and message.endswith("the next one starts over.")
    world.progress = None
    world.train_ends()
    world.settle()
    assert world.condition("StorageFailing") is None and world.ready["status"] == "True"


def test_what_a_pod_says_of_storage_is_one_bounded_line(world: Any) -> None:
    to_training(world)
    world.progress = document(storage_failure="no\nway\x1b[31m" * 80)
    world.step()
    message = world.condition("StorageFailing")["message"]
    assert message.isprintable() and len(message) < 1000
