"""The way of checkpoints to storage and back, in a local registry."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from luthier_api.training import Checkpoint
from luthier_artifacts import Manifest, Registry, StorageUnavailable, open_registry
from luthier_trainer.checkpointing.checkpoints import Checkpoints
from luthier_trainer.runtime.progress import Progress

pytestmark = pytest.mark.unit

RUN = "c0ffee00"


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


def test_an_upload_that_fails_is_told_and_tried_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, put = Bench(registry, tmp_path / "here"), registry.put_checkpoint
    calls: list[int] = []
    told: list[str | None] = []
    stored = threading.Event()

    def fail_twice(run_key: str, step: int, folder: Path) -> Manifest:
        told.append(bench.progress.document().storage_failure)
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
    assert (
        told == [None, *["Checkpoints cannot be stored: busy"] * 2]
        and bench.progress.document().storage_failure is None
    )


def test_a_checkpoint_whose_upload_failed_gives_way_to_a_newer_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, put = Bench(registry, tmp_path / "here"), registry.put_checkpoint
    begun, newer_waits, stored = threading.Event(), threading.Event(), threading.Event()

    def fail_first(run_key: str, step: int, folder: Path) -> Manifest:
        if step == 10:
            begun.set()
            assert newer_waits.wait(10)
            raise StorageUnavailable("busy")
        manifest = put(run_key, step, folder)
        stored.set()
        return manifest

    monkeypatch.setattr(registry, "put_checkpoint", fail_first)
    bench.checkpoints.offer(10, bench.made(10))
    assert begun.wait(10)
    bench.checkpoints.offer(20, bench.made(20))
    newer_waits.set()
    assert stored.wait(10)
    bench.checkpoints.close()
    assert registry.checkpoints(RUN) == [20]


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
