"""How many processes a node starts, and what is reported of them when they have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier_api.documents import Published, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_trainer.runtime.errors import InvalidSpec, LossNotFinite, PeerLost
from luthier_trainer.runtime.launch import Launch, collect_results, torchrun_ranks
from luthier_trainer.runtime.outcome import failure_result

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"LUTHIER_PROCESSES_PER_NODE": "1", "LUTHIER_NUM_NODES": "1"}, None),
        ({"LUTHIER_PROCESSES_PER_NODE": "4"}, Launch(1, 4, "localhost:0", 1)),
        (
            {"LUTHIER_NUM_NODES": "2", "LUTHIER_RENDEZVOUS": "a-0.a:29500", "LUTHIER_MAX_RESTARTS": "0"},
            Launch(2, 1, "a-0.a:29500", 0),
        ),
        ({"LUTHIER_PROCESSES_PER_NODE": "4", "RANK": "0"}, None),
    ],
)
def test_the_environment_says_how_many_processes_to_start(environment: dict[str, str], wanted: Launch | None) -> None:
    assert Launch.from_environment(environment) == wanted


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"LUTHIER_NUM_NODES": "2"}, "give LUTHIER_RENDEZVOUS"),
        ({"LUTHIER_PROCESSES_PER_NODE": "two"}, "LUTHIER_PROCESSES_PER_NODE is 'two'"),
        ({"LUTHIER_NUM_NODES": "0"}, "at least 1"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        Launch.from_environment(environment)


def test_torchrun_numbers_are_read_whole_or_not_at_all() -> None:
    numbers = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert torchrun_ranks(numbers) == (3, 4, 1, 2)
    assert torchrun_ranks({"RANK": "3"}) == (0, 1, 0, 1)


DIVERGED = failure_result(LossNotFinite("The loss is nan at step 7."))
LOST = failure_result(PeerLost("Process 0 of 2 lost another one."))
PUBLISHED = Result(
    published=Published(run_key="0" * 64, version="v", uri="s3://b/v", digest="sha256:" + "0" * 64, size_bytes=1)
)


@pytest.mark.parametrize(
    ("left", "codes", "code", "reason", "sentence"),
    [
        ([LOST, DIVERGED], [81, 74], ExitCode.LOSS_NOT_FINITE, Reason.LOSS_NOT_FINITE, "nan at step 7"),
        ([LOST], [81, -9], ExitCode.KILLED, Reason.OUT_OF_MEMORY, "ended without a result (exit code 81, -9)"),
        ([LOST], [81], ExitCode.PREEMPTED, Reason.PREEMPTED, "lost another one"),
        ([], [81], ExitCode.PREEMPTED, Reason.PREEMPTED, "asked to stop"),
        ([], [-11], ExitCode.CRASHED, Reason.CRASHED, "exit code -11"),
    ],
)
def test_of_several_failures_the_one_that_says_why_is_reported(
    tmp_path: Path, left: list[Result], codes: list[int], code: ExitCode, reason: Reason, sentence: str
) -> None:
    leave(tmp_path, left)
    result, found = collect_results(tmp_path, codes)
    assert result.failure
    assert (found, result.failure.reason) == (code, reason)
    assert sentence in result.failure.message


def test_a_version_is_reported_when_all_ended_well(tmp_path: Path) -> None:
    leave(tmp_path, [PUBLISHED, PUBLISHED])
    assert collect_results(tmp_path, []) == (PUBLISHED, ExitCode.OK)


def leave(folder: Path, results: list[Result]) -> None:
    for rank, result in enumerate(results):
        (folder / f"{rank}.json").write_text(result.to_termination_message())
