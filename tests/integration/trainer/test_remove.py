"""remove, on a real S3 server: what goes, what is kept and why, and what an attempt that was cut off leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import Origin, Place, Removal, Removed
from luthier_api.exitcodes import ExitCode
from luthier_artifacts import Lineage, Metadata, Registry, StorageConfig, open_store
from luthier_trainer.remove import IN_USE

pytestmark = pytest.mark.integration

MINE, OTHER = "uid-mine", "uid-other"
RUN_KEYS = [f"{number:02x}" * 32 for number in range(16)]


class Shelf:
    """A model's folder, and versions in it that say which resource made them."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self._now = datetime(2026, 1, 31, tzinfo=UTC)
        self.store = open_store(f"{bench.uri}/registry", StorageConfig.from_access(bench.access))
        self.registry = Registry(self.store, "sentiment", clock=self._clock, claim_grace_s=0)
        self.folder = bench.folder / "model"
        self.folder.mkdir()
        (self.folder / "model.safetensors").write_bytes(b"weights")
        (self.folder / "config.json").write_text("{}")

    def _clock(self) -> datetime:
        self._now += timedelta(minutes=1)
        return self._now

    def publish(self, run_key: str, uid: str | None = MINE) -> str:
        document: dict[str, Any] = {"spec": {}}
        if uid:
            document["origin"] = Origin(name="reviews", namespace="team", uid=uid, generation=1, run="r").to_wire()
        lineage = Lineage(run_document=document)
        return self.registry.publish(self.folder, run_key, Metadata(lineage=lineage)).version

    def removal(self, **changes: Any) -> Removal:
        fields = {
            "places": [Place(uri=f"{self.bench.uri}/registry", name="sentiment")],
            "output_access": self.bench.access,
            "origin": Origin(name="reviews", namespace="team", uid=MINE, generation=3, run="reviews-remove"),
        }
        return Removal.model_validate(fields | changes)

    def remove(self, **changes: Any) -> Removed:
        answer = self.bench.run("remove", self.removal(**changes).to_wire())
        assert answer.code == ExitCode.OK, answer
        assert answer.result.removed
        return answer.result.removed

    def left_of(self, version: str) -> list[str]:
        """Objects of a version that hold anything; the seal of a removed one is empty and stays."""
        return [info.key for info in self.store.list(f"sentiment/versions/{version}") if info.size > 0]


@pytest.fixture
def shelf(bench: Any) -> Shelf:
    return Shelf(bench)


def test_what_the_resource_made_goes_and_all_else_stays(shelf: Shelf) -> None:
    mine, served, aliased, others, unknown = (
        shelf.publish(key, uid) for key, uid in zip(RUN_KEYS, (MINE, MINE, MINE, OTHER, None), strict=False)
    )
    shelf.registry.set_alias("production", aliased, replacing=None)
    for run_key in RUN_KEYS[8:10]:
        shelf.registry.put_checkpoint(run_key, 7, shelf.folder)

    answer = shelf.remove(in_use=[served], run_keys=[RUN_KEYS[8]])

    assert answer.removed == [mine]
    assert answer.kept[served] == IN_USE
    assert "The alias production points at" in answer.kept[aliased]
    assert set(answer.kept) == {served, aliased}, "of versions that another resource made nothing is said"
    assert shelf.registry.list_versions() == [served, aliased, others, unknown]
    assert shelf.left_of(mine) == [] and shelf.registry.find_run(RUN_KEYS[0]) is None
    for kept in (served, aliased, others, unknown):
        shelf.registry.download(kept, shelf.folder.parent / kept)
    assert (shelf.registry.checkpoints(RUN_KEYS[8]), shelf.registry.checkpoints(RUN_KEYS[9])) == ([], [7])


def test_only_the_versions_that_are_named_go_and_those_that_vanished_count_as_gone(shelf: Shelf) -> None:
    newest_last = [shelf.publish(key) for key in RUN_KEYS[:3]]
    others = shelf.publish(RUN_KEYS[3], OTHER)
    vanished = "20200101-000000-00000000"

    answer = shelf.remove(versions=[newest_last[0], newest_last[1], others, vanished], in_use=[newest_last[1]])

    assert answer.removed == [vanished, newest_last[0]]
    assert answer.kept == {newest_last[1]: IN_USE, others: "Another resource made it."}
    assert shelf.registry.list_versions() == [newest_last[1], newest_last[2], others]


def test_a_run_whose_version_was_removed_can_be_published_again(shelf: Shelf) -> None:
    first = shelf.publish(RUN_KEYS[0])
    assert shelf.remove().removed == [first]
    again = shelf.publish(RUN_KEYS[0])
    found = shelf.registry.find_run(RUN_KEYS[0])
    assert again != first and found and found.version == again


def test_a_version_that_is_damaged_is_kept_and_the_rest_still_goes(shelf: Shelf) -> None:
    damaged, whole = shelf.publish(RUN_KEYS[0]), shelf.publish(RUN_KEYS[1])
    shelf.store.write(f"sentiment/versions/{damaged}/manifest.json", b"{}")
    answer = shelf.remove()
    assert answer.removed == [whole]
    assert answer.kept == {damaged: "Its manifest is damaged; remove it by hand."}


def test_of_a_bucket_that_is_gone_nothing_is_left_to_remove(shelf: Shelf) -> None:
    mine = shelf.publish(RUN_KEYS[0])
    nowhere = Place(uri="s3://no-such-bucket/registry", name="sentiment")
    answer = shelf.remove(places=[nowhere, *shelf.removal().places])
    assert (answer.removed, answer.kept) == ([mine], {})


def test_storage_that_denies_the_removal_is_said_and_nothing_is_lost(
    shelf: Shelf, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shelf.publish(RUN_KEYS[0])
    for name, value in s3.server.reader.environment("LUTHIER_OUTPUT_").items():
        monkeypatch.setenv(name, value)
    answer = shelf.bench.run("remove", shelf.removal().to_wire())
    assert answer.code == ExitCode.STORAGE_DENIED
    assert mine in answer.message
    assert shelf.registry.list_versions() == [mine]


def test_a_document_that_is_none_is_refused_by_its_first_mistake(shelf: Shelf) -> None:
    answer = shelf.bench.run("remove", {"places": []})
    assert answer.code == ExitCode.INVALID_SPEC
    assert "is not a removal document: places:" in answer.message


def test_killed_after_any_write_it_finishes_when_run_again(shelf: Shelf, faulty_server: Any, tmp_path: Path) -> None:
    access = shelf.bench.access.model_copy(update={"endpoint": faulty_server.endpoint})
    kills = 0
    for at_write in range(1, 20):
        versions = [shelf.publish(key) for key in RUN_KEYS[:2]]
        shelf.registry.put_checkpoint(RUN_KEYS[8], 7, shelf.folder)
        document = tmp_path / "removal.json"
        document.write_text(shelf.removal(output_access=access, run_keys=[RUN_KEYS[8]]).to_json())
        if not killed_after_write(at_write, document, faulty_server):
            break
        kills += 1
        for version in shelf.registry.list_versions():  # whole, or not there at all
            shelf.registry.download(version, tmp_path / f"{at_write}-{version}")
        answer = shelf.remove(run_keys=[RUN_KEYS[8]])
        assert set(answer.removed) <= set(versions)
        assert [left for version in versions for left in shelf.left_of(version)] == []
        assert not list(shelf.store.list(f"sentiment/checkpoints/{RUN_KEYS[8]}"))
    assert kills >= 5, "each version is sealed and emptied, and the checkpoint deleted"
    assert shelf.registry.list_versions() == []


def killed_after_write(at_write: int, document: Path, server: Any) -> bool:
    """Run remove in a process of its own, killed right after its n-th write took effect; whether it got that far."""
    writes: list[str] = []
    process: subprocess.Popen[bytes] | None = None

    def fault(handler: Any) -> bool:
        if handler.command in ("GET", "HEAD"):
            return False
        writes.append(handler.path)
        answer = server.forward(handler)
        if len(writes) == at_write:
            assert process
            process.send_signal(signal.SIGKILL)
        else:
            handler.answer(*answer)
        return True

    server.fault = fault
    command = [sys.executable, "-m", "luthier_trainer", "remove", str(document)]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    code = process.wait(timeout=60)
    assert code in (0, -signal.SIGKILL)
    return code != 0
