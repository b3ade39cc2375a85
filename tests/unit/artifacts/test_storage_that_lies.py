"""Storage that ignores conditions, cuts files short or breaks off is found out, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from luthier_artifacts import (
    ConditionalWritesUnsupported,
    IntegrityError,
    Metadata,
    Registry,
    StorageUnavailable,
    verify_folder,
)
from luthier_artifacts.file_store import FileStore
from luthier_artifacts.parts import PartialFile
from luthier_artifacts.store import Body, Progress

pytestmark = pytest.mark.unit

RUN = "ab" * 32


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"0123456789")
    return folder


class Ignoring(FileStore):
    """Accepts conditions and ignores some of them, as some S3 servers do."""

    ignored: str

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if self.ignored == "If-None-Match":
            if_absent = False
        else:
            if_match = None
        return super().write(key, data, if_absent=if_absent, if_match=if_match)


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_a_condition_is_named_before_anything_is_uploaded(
    tmp_path: Path, model: Path, header: str
) -> None:
    store = Ignoring(tmp_path / "storage")
    store.ignored = header
    with pytest.raises(ConditionalWritesUnsupported, match=f"accepts {header} and ignores it"):
        Registry(store, "m").publish(model, RUN, Metadata())
    assert [info.key for info in store.list()] == ["m/.probe"]


class Short(FileStore):
    """Keeps all but the last byte of each file, and says nothing."""

    def upload(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        for key, path in files.items():
            self.write(key, path.read_bytes()[:-1])


def test_a_file_that_storage_cut_short_is_not_published(tmp_path: Path, model: Path) -> None:
    registry = Registry(Short(tmp_path / "storage"), "m")
    with pytest.raises(IntegrityError, match="weights has 9 bytes after an upload of 10"):
        registry.publish(model, RUN, Metadata())
    assert registry.find_run(RUN) is None and registry.list_versions() == []


class Breaking(FileStore):
    """Breaks off the first answers, in the middle of the file."""

    breaks: int

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> Body:
        body = super().read_range(key, start, length, etag=etag)
        self.breaks -= 1
        return Body(body.total_size, iter([b"0"]), body.close) if self.breaks >= 0 else body


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartialFile._fetch_part.retry, "sleep", lambda seconds: None)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_pause")
def test_a_stream_that_breaks_three_times_is_asked_for_again(tmp_path: Path, model: Path) -> None:
    store = Breaking(tmp_path / "storage")
    store.breaks = 0
    registry = Registry(store, "m")
    version = registry.publish(model, RUN, Metadata()).version
    store.breaks = 3
    verify_folder(tmp_path / "out", registry.download(version, tmp_path / "out"))
    store.breaks = 4
    with pytest.raises(StorageUnavailable, match="weights ended early"):
        registry.download(version, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_pruning_checkpoints_keeps_the_newest_and_what_is_still_being_written(tmp_path: Path, model: Path) -> None:
    store = FileStore(tmp_path / "storage")
    registry = Registry(store, "m")
    for step in (9, 20, 100):
        registry.put_checkpoint(RUN, step, model)
    store.write(f"m/checkpoints/{RUN}/15/half/weights", b"0")
    store.write(f"m/checkpoints/{RUN}/200/half/weights", b"0")
    registry.prune_checkpoints(RUN, 2)
    assert registry.checkpoints(RUN) == [20, 100]
    steps = {info.key.split("/")[3] for info in store.list(f"m/checkpoints/{RUN}")}
    assert steps == {"20", "100", "200"}
    registry.prune_checkpoints(RUN, 0)
    assert list(store.list(f"m/checkpoints/{RUN}")) == []
