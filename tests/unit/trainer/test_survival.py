"""Requests to stop, the way of checkpoints to storage, and what is told of a node's processes. All without torch."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from luthier_api.documents import Published, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_api.training import Checkpoint
from luthier_artifacts import Manifest, Registry, StorageUnavailable, open_registry
from luthier_trainer.checkpointing.checkpoints import Checkpoints
from luthier_trainer.runtime.errors import InvalidSpec, LossNotFinite, PeerLost, StopRequested
from luthier_trainer.runtime.launch import Launch, told, torchrun_numbers
from luthier_trainer.runtime.outcome import failure_result
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.stopping import Stop

pytestmark = pytest.mark.unit

RUN = "c0ffee00"


# ---- Stopping ----


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_takes_effect_at_once_unless_it_is_deferred() -> None:
    stop = Stop()
    with stop.on_sigterm(), pytest.raises(StopRequested):
        ask()
    assert not stop.requested


def test_a_deferred_request_is_only_noted_and_takes_effect_at_the_end() -> None:
    stop, passed = Stop(), False
    with stop.on_sigterm(), pytest.raises(StopRequested), stop.deferred():
        ask()
        assert stop.requested
        passed = True
    assert passed


def test_a_second_request_takes_effect_at_once() -> None:
    stop = Stop()
    with stop.on_sigterm(), stop.deferred():
        ask()
        with pytest.raises(StopRequested):
            ask()
        stop.requested = False


def test_an_error_is_told_rather_than_the_request_that_came_before_it() -> None:
    stop = Stop()
    with stop.on_sigterm(), pytest.raises(LossNotFinite), stop.deferred():
        ask()
        raise LossNotFinite("no number")


# ---- Checkpoints ----


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(f"file://{tmp_path}/registry", "sentiment")


class Bench:
    """Checkpoints of one run in a local registry."""

    def __init__(self, registry: Registry, folder: Path, **settings: object) -> None:
        self.folder, self.registry, self.progress = folder, registry, Progress()
        self.checkpoints = Checkpoints(
            registry,
            RUN,
            Checkpoint.model_validate(settings),
            folder / "waiting",
            folder / "resumed",
            self.progress,
            retry_after_s=0.01,
        )

    def made(self, step: int) -> Path:
        folder = self.folder / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(step))
        return folder


def test_checkpoints_beyond_keep_go_and_so_does_what_a_killed_writer_left(registry: Registry, tmp_path: Path) -> None:
    bench = Bench(registry, tmp_path / "here", keep=2)
    partial = tmp_path / "registry" / "sentiment" / "checkpoints" / RUN / "15" / "0123" / "weights"
    partial.parent.mkdir(parents=True)
    partial.write_text("half")
    for step in (10, 20, 30):
        bench.checkpoints.put(step, bench.made(step))
    assert registry.checkpoints(RUN) == [20, 30]
    assert not partial.exists()
    assert bench.progress.document().checkpoint_step == 30
    assert not any((tmp_path / "here" / "waiting").iterdir())
    bench.checkpoints.delete_all()
    assert registry.checkpoints(RUN) == []


def test_what_is_about_to_exist_is_not_pruned(registry: Registry, tmp_path: Path) -> None:
    bench = Bench(registry, tmp_path / "here", keep=1)
    arriving = tmp_path / "registry" / "sentiment" / "checkpoints" / RUN / "40" / "0123" / "weights"
    arriving.parent.mkdir(parents=True)
    arriving.write_text("half")
    bench.checkpoints.put(30, bench.made(30))
    assert arriving.exists()


def test_the_newest_that_verifies_is_resumed_and_a_damaged_one_can_be_written_again(
    registry: Registry, tmp_path: Path
) -> None:
    bench = Bench(registry, tmp_path / "here")
    for step in (10, 20):
        bench.checkpoints.put(step, bench.made(step))
    (damaged,) = (tmp_path / "registry" / "sentiment" / "checkpoints" / RUN / "20").glob("*/weights")
    damaged.write_text("!!")
    assert bench.checkpoints.newest() == 10
    assert (bench.checkpoints.fetch(10) / "weights").read_text() == "10"
    assert registry.checkpoints(RUN) == [10]
    bench.checkpoints.put(20, bench.made(20))
    assert Bench(registry, tmp_path / "there").checkpoints.newest() == 20


def test_never_begins_anew(registry: Registry, tmp_path: Path) -> None:
    bench = Bench(registry, tmp_path / "here", resume="Never")
    bench.checkpoints.put(10, bench.made(10))
    assert bench.checkpoints.newest() is None
    assert registry.checkpoints(RUN) == []


def test_an_upload_that_fails_is_tried_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, put, calls = Bench(registry, tmp_path / "here"), registry.put_checkpoint, []
    stored = threading.Event()

    def fail_twice(run_key: str, step: int, folder: Path) -> Manifest:
        calls.append(step)
        if len(calls) < 3:
            raise StorageUnavailable("busy")
        manifest = put(run_key, step, folder)
        stored.set()
        return manifest

    monkeypatch.setattr(registry, "put_checkpoint", fail_twice)
    bench.checkpoints.offer(10, bench.made(10))
    assert stored.wait(10)
    bench.checkpoints.close()
    assert (calls, registry.checkpoints(RUN)) == ([10, 10, 10], [10])


def test_a_checkpoint_that_waits_gives_way_to_a_newer_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, put = Bench(registry, tmp_path / "here"), registry.put_checkpoint
    begun, go_on = threading.Event(), threading.Event()

    def slow(run_key: str, step: int, folder: Path) -> Manifest:
        begun.set()
        assert go_on.wait(10)
        return put(run_key, step, folder)

    monkeypatch.setattr(registry, "put_checkpoint", slow)
    bench.checkpoints.offer(10, bench.made(10))
    assert begun.wait(10)
    for step in (20, 30):
        bench.checkpoints.offer(step, bench.made(step))
    go_on.set()
    bench.checkpoints.close()
    assert registry.checkpoints(RUN) == [10, 30]


# ---- Launching ----


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
    assert Launch.wanted(environment) == wanted


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
        Launch.wanted(environment)


def test_torchrun_numbers_are_read_whole_or_not_at_all() -> None:
    numbers = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert torchrun_numbers(numbers) == (3, 4, 1, 2)
    assert torchrun_numbers({"RANK": "3"}) == (0, 1, 0, 1)


DIVERGED = failure_result(LossNotFinite("The loss is nan at step 7."))
LOST = failure_result(PeerLost("Process 0 of 2 lost another one."))
PUBLISHED = Result(
    published=Published(run_key="0" * 64, version="v", uri="s3://b/v", digest="sha256:" + "0" * 64, size_bytes=1)
)


@pytest.mark.parametrize(
    ("left", "codes", "code", "reason", "sentence"),
    [
        ([LOST, DIVERGED], [81, 74], ExitCode.LOSS_NOT_FINITE, Reason.LOSS_NOT_FINITE, "nan at step 7"),
        ([LOST], [81, -9], ExitCode.KILLED, Reason.OUT_OF_MEMORY, "ended without a word (exit code 81, -9)"),
        ([LOST], [81], ExitCode.PREEMPTED, Reason.PREEMPTED, "lost another one"),
        ([], [81], ExitCode.PREEMPTED, Reason.PREEMPTED, "asked to stop"),
        ([], [-11], ExitCode.CRASHED, Reason.CRASHED, "exit code -11"),
    ],
)
def test_of_several_failures_the_one_that_says_why_is_told(
    tmp_path: Path, left: list[Result], codes: list[int], code: ExitCode, reason: Reason, sentence: str
) -> None:
    leave(tmp_path, left)
    result, found = told(tmp_path, codes)
    assert result.failure
    assert (found, result.failure.reason) == (code, reason)
    assert sentence in result.failure.message


def test_a_version_is_told_when_all_ended_well(tmp_path: Path) -> None:
    leave(tmp_path, [PUBLISHED, PUBLISHED])
    assert told(tmp_path, []) == (PUBLISHED, ExitCode.OK)


def leave(folder: Path, results: list[Result]) -> None:
    for rank, result in enumerate(results):
        (folder / f"{rank}.json").write_text(result.to_termination_message())
