"""Two resources whose runs would train the same: the pod of one waits in prepare, and never with a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.documents import ProgressDocument
from luthier_api.exitcodes import ExitCode

pytestmark = pytest.mark.unit

OTHER = "run reviews-4f0c of FineTuneJob team-b/reviews"
SENTENCE = f"The same is being trained by {OTHER}; this run waits for it in prepare, without a GPU."


def waits(world: Any, whom: str = OTHER) -> None:
    """The pod of prepare says for whom it waits."""
    world.running(world.job("prepare"))
    world.progress = ProgressDocument(stage="Waiting", waiting_for=whom, updated_at="2026-01-01T00:00:00Z")


def yields(world: Any, **changes: Any) -> None:
    """Bring the world to a training whose pod finds that another run trains the same."""
    world.edit(**changes)
    world.settle()
    world.prepare_ends()
    world.settle()
    world.fails("train", ExitCode.PREPARE_AGAIN, SENTENCE)


def test_a_run_that_waits_for_another_says_for_which_and_nothing_is_written_while_it_waits(world: Any) -> None:
    world.settle()
    waits(world)
    world.step()
    assert (world.ready["reason"], world.ready["status"]) == ("WaitingForRun", "False")
    assert world.ready["message"] == f"Waiting for {OTHER}, which trains the same. No GPU is requested."
    assert world.condition("Reconciling") and world.status["phase"] == "Waiting"
    assert "progress" not in world.status
    assert world.events[-1] == "WaitingForRun"
    world.now = world.now.replace(year=2027)
    assert world.plan().empty, "waiting is neither stuck nor late"
    world.registry[world.key()] = "v-of-the-other"
    world.progress = None
    world.prepare_ends()
    world.settle()
    assert (world.ready["reason"], world.trained) == ("Reused", [])


def test_a_run_that_takes_over_from_another_goes_on_to_train(world: Any) -> None:
    world.settle()
    waits(world)
    world.step()
    world.progress = None
    world.prepare_ends()
    world.settle()
    assert world.ready["reason"] == "Training" and world.job("train")
    world.train_ends()
    world.settle()
    assert world.ready["reason"] == "Published"


def test_what_a_pod_says_it_waits_for_is_cut_to_one_printable_line(world: Any) -> None:
    world.settle()
    waits(world, "a run\n\x1b[31mof\u202e nobody" + "!" * 900)
    world.step()
    message = world.ready["message"]
    assert message.isprintable() and message.startswith("Waiting for a run") and len(message) < 800


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_training_that_finds_another_at_work_begins_again_with_prepare_and_counts_no_failure(
    world: Any, nodes: int
) -> None:
    yields(world, numNodes=nodes)
    old = {name: job["metadata"]["uid"] for name, job in world.jobs.items()}
    world.settle()
    prepare = world.job("prepare")
    assert prepare["metadata"]["uid"] != old[prepare["metadata"]["name"]]
    assert world.job("train") is None, "no GPU is held or requested"
    assert world.ready["reason"] == "Preparing"
    assert "attempts" not in world.status and "lastFailure" not in world.status
    waits(world)
    world.step()
    assert world.ready["reason"] == "WaitingForRun"
    world.registry[world.key()] = "v-of-the-other"
    world.progress = None
    world.prepare_ends()
    world.settle()
    assert (world.ready["reason"], world.trained) == ("Reused", [])


def test_failures_from_before_another_run_took_over_stay_counted(world: Any) -> None:
    world.edit(backoffLimit=2)
    world.settle()
    world.prepare_ends()
    world.settle()
    world.end(world.job("train"), ExitCode.CRASHED, final=False)
    world.step()
    world.fails("train", ExitCode.PREPARE_AGAIN, SENTENCE)
    world.settle()
    assert world.status["attempts"] == {"failed": 1, "preempted": 0}
    assert world.status["lastFailure"]["reason"] == "Crashed"


@pytest.mark.parametrize("cut", range(5))
def test_killed_anywhere_the_operator_begins_again_with_prepare(world: Any, cut: int) -> None:
    yields(world)
    world.step(cut)
    world.collect()
    world.settle()
    assert world.job("prepare") and world.job("train") is None
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True" and len(world.trained) == 1


def test_a_prepare_that_ends_as_only_a_training_may_has_failed(world: Any) -> None:
    """Else prepare would be made again for ever."""
    world.settle()
    world.fails("prepare", ExitCode.PREPARE_AGAIN, SENTENCE)
    world.settle()
    assert world.condition("Stalled") and world.job("prepare") is None
