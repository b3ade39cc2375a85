"""Listing, aliases, removal, checkpoints and prepared data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from luthier_artifacts import (
    Holder,
    IntegrityError,
    InvalidUri,
    Lineage,
    Metadata,
    ObjectNotFound,
    PreconditionFailed,
    Registry,
    open_store,
    verify_folder,
)
from luthier_artifacts.store import ObjectStore

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@pytest.fixture
def store(storage) -> ObjectStore:
    return open_store(storage.uri, storage.config)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(store: ObjectStore, clock: Clock) -> Registry:
    return Registry(store, "m", clock=clock, claim_grace_s=0)


def _publish(registry: Registry, clock: Clock, model: Path, *promotable: bool) -> list[str]:
    """Publish one version for each flag, a minute apart; their run keys sort the other way round."""
    versions = []
    for number, flag in enumerate(promotable):
        run_key = f"{255 - number:02x}" * 32
        versions.append(registry.publish(model, run_key, Metadata(promotable=flag)).version)
        clock.advance(minutes=1)
    return versions


def test_versions_are_listed_in_the_order_of_time(
    registry: Registry, store: ObjectStore, clock: Clock, model: Path
) -> None:
    assert registry.list_versions() == []
    versions = _publish(registry, clock, model, True, True, False)
    store.write("m/versions/notes/manifest.json", b"somebody's own")
    assert registry.list_versions() == versions
    assert [registry.get_manifest(version).promotable for version in versions] == [True, True, False]
    store.write(f"m/versions/{versions[1]}/manifest.json", b"damaged")
    with pytest.raises(IntegrityError, match="not a valid manifest"):
        registry.get_manifest(versions[1])


def test_a_manifest_carries_everything_the_trainer_said(registry: Registry, model: Path) -> None:
    metadata = Metadata(
        task="text-classification",
        labels=["no", "yes"],
        exports=["safetensors"],
        metrics={"f1": 0.5},
        promotable=False,
        gate_messages=["eval_f1 is 0.5, below 0.9."],
        lineage=Lineage(
            base_model_uri="s3://b/m", run_document={"spec": {"x": None}}, environment={"torch": "2"}, seed=1
        ),
    )
    published = registry.publish(model, "ab" * 32, metadata)
    stored = registry.get_manifest(published.version)
    assert stored == published.manifest
    assert Metadata.model_validate({name: getattr(stored, name) for name in Metadata.model_fields}) == metadata
    assert [entry.path for entry in stored.files] == ["config.json", "model.safetensors", "tokenizer/vocab.txt"]


def test_a_folder_that_cannot_be_a_version_is_refused_before_anything_is_written(
    registry: Registry, store: ObjectStore, tmp_path: Path
) -> None:
    registry.probe_conditional_writes()
    before = list(store.list())
    for name, error in ((None, ObjectNotFound), ("manifest.json", InvalidUri), ("a\nb", InvalidUri)):
        folder = tmp_path / f"bad-{name!r}"
        folder.mkdir()
        if name:
            (folder / name).touch()
        with pytest.raises(error, match=r"\.$"):
            registry.publish(folder, "ab" * 32, Metadata())
    assert list(store.list()) == before


@pytest.mark.parametrize("name", ["", "a/b", "..", "UPPER", "-a", "a" * 300])
def test_names_that_are_no_names_are_refused(registry: Registry, store: ObjectStore, name: str) -> None:
    for call in (
        lambda: Registry(store, name),
        lambda: registry.find_run(name),
        lambda: registry.get_manifest(name),
        lambda: registry.get_alias(name),
        lambda: registry.checkpoints(name),
        lambda: registry.find_prepared(name),
    ):
        with pytest.raises(InvalidUri):
            call()


def test_an_alias_is_moved_only_from_where_it_was_read(registry: Registry, clock: Clock, model: Path) -> None:
    one, two = _publish(registry, clock, model, True, True)
    assert registry.get_alias("production") is None
    assert registry.list_aliases() == []
    made = registry.set_alias("production", one, replacing=None)
    assert registry.get_alias("production") == made
    moved = registry.set_alias("production", two, replacing=made)
    for stale in (made, None):
        with pytest.raises(PreconditionFailed, match=f"production was moved by somebody else and points at {two}"):
            registry.set_alias("production", one, replacing=stale)
    assert registry.get_alias("production") == moved
    assert registry.list_aliases() == [moved]
    with pytest.raises(ObjectNotFound):
        registry.set_alias("production", "20000101-000000-00000000", replacing=moved)


def test_of_sixteen_who_move_an_alias_at_once_one_does(registry: Registry, clock: Clock, model: Path) -> None:
    versions = _publish(registry, clock, model, True, True)
    start = registry.set_alias("production", versions[0], replacing=None)

    def move(number: int) -> bool:
        try:
            registry.set_alias("production", versions[number % 2], replacing=start)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(move, range(16)))
    assert sum(won) == 1
    alias = registry.get_alias("production")
    assert alias is not None and alias.version == versions[won.index(True) % 2]


def test_a_deleted_version_is_gone_at_once_and_its_run_can_be_published_again(
    registry: Registry, store: ObjectStore, clock: Clock, model: Path, tmp_path: Path
) -> None:
    (version,) = _publish(registry, clock, model, True)
    alias = registry.set_alias("production", version, replacing=None)
    with pytest.raises(PreconditionFailed, match="production points at"):
        registry.delete_version(version)
    store.delete([f"m/aliases/{alias.alias}.json"])
    for _ in range(2):
        registry.delete_version(version)
        assert registry.find_run("ff" * 32) is None
        assert registry.list_versions() == []
        with pytest.raises(ObjectNotFound):
            registry.get_manifest(version)
    assert not [info for info in store.list("m/versions") if info.size > 0]
    with pytest.raises(ObjectNotFound):
        registry.delete_version("20000101-000000-00000000")
    again = registry.publish(model, "ff" * 32, Metadata())
    assert not again.reused and registry.list_versions() == [again.version] != [version]
    verify_folder(tmp_path / "out", registry.download(again.version, tmp_path / "out"))


def test_a_deletion_that_is_killed_at_any_write_leaves_a_whole_version_or_none(
    store: ObjectStore, clock: Clock, model: Path, tmp_path: Path, faults
) -> None:
    for number in range(1, 7):
        registry = Registry(store, f"m{number}", clock=clock)
        version = registry.publish(model, "ff" * 32, Metadata()).version
        mortal = faults.MortalStore(store, number, "before")
        with pytest.raises(faults.Killed) if number < 6 else nullcontext():
            Registry(mortal, f"m{number}").delete_version(version)
        if registry.list_versions():
            assert number == 1
            verify_folder(tmp_path / "out", registry.download(version, tmp_path / "out"))
        registry.delete_version(version)
        assert not [info for info in store.list(f"m{number}/versions") if info.size > 0]


def test_what_a_killed_trainer_left_is_swept_once_it_is_old(
    registry: Registry, store: ObjectStore, clock: Clock, model: Path, faults
) -> None:
    clock.now = datetime.now(UTC)
    (kept,) = _publish(registry, clock, model, True)
    doomed = Registry(faults.MortalStore(store, 4, "before"), "m", clock=clock)
    with pytest.raises(faults.Killed):
        doomed.publish(model, "ab" * 32, Metadata())
    folders = {info.key.split("/")[2] for info in store.list("m/versions")}
    (left,) = folders - {kept}
    assert registry.claim("cd" * 32, Holder("a", "run a"), trains=True).take() is None
    assert registry.sweep_abandoned() == []
    assert list(store.list("m/claims"))
    assert {info.key.split("/")[2] for info in store.list("m/versions")} == folders
    clock.advance(days=8)
    assert registry.sweep_abandoned() == [left]
    assert list(store.list("m/claims")) == []
    assert not [info for info in store.list(f"m/versions/{left}") if info.size > 0]
    clock.advance(days=8)
    assert registry.sweep_abandoned() == [left]
    assert list(store.list(f"m/versions/{left}")) == []
    assert registry.list_versions() == [kept]


def test_a_checkpoint_without_a_valid_manifest_does_not_exist(
    registry: Registry, store: ObjectStore, model: Path, tmp_path: Path, faults
) -> None:
    run_key = "ab" * 32
    registry.put_checkpoint(run_key, 9, model)
    registry.put_checkpoint(run_key, 100, model)
    for number in range(1, 5):
        mortal = Registry(faults.MortalStore(store, number, "before"), "m")
        with pytest.raises(faults.Killed):
            mortal.put_checkpoint(run_key, 200 + number, model)
    assert registry.checkpoints(run_key) == [9, 100]
    store.write(f"m/checkpoints/{run_key}/100/manifest.json", b'{"files": []}')
    assert registry.checkpoints(run_key) == [9]
    with pytest.raises(IntegrityError):
        registry.get_checkpoint(run_key, 100, tmp_path / "out")
    with pytest.raises(ObjectNotFound):
        registry.get_checkpoint(run_key, 300, tmp_path / "out")
    (model / "config.json").write_text('{"second": true}')
    again = registry.put_checkpoint(run_key, 100, model)
    assert registry.checkpoints(run_key) == [9, 100]
    verify_folder(tmp_path / "out", registry.get_checkpoint(run_key, 100, tmp_path / "out"))
    verify_folder(model, again)
    registry.delete_checkpoint(run_key, 100)
    assert registry.checkpoints(run_key) == [9]
    assert not list(store.list(f"m/checkpoints/{run_key}/100"))


def test_eight_prepares_of_the_same_data_leave_one_whole_tree(
    registry: Registry, store: ObjectStore, tmp_path: Path
) -> None:
    data_key = "cd" * 32
    assert registry.find_prepared(data_key) is None
    registry.probe_conditional_writes()

    def prepare(number: int) -> str:
        folder = tmp_path / f"data-{number}"
        folder.mkdir()
        (folder / "train.arrow").write_text(f"by {number}")
        return registry.put_prepared(data_key, folder).digest

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(prepare, range(8)))
    manifest = registry.get_prepared(data_key, tmp_path / "out")
    assert digests == {manifest.digest}
    verify_folder(tmp_path / "out", manifest)
    assert len(list(store.list(f"m/prepared/{data_key}"))) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_late_writer_of_a_checkpoint_cannot_change_the_one_that_exists(
    registry: Registry, store: ObjectStore, model: Path, tmp_path: Path, faults, when: str
) -> None:
    run_key = "ab" * 32

    def overtake(moment: str, operation: str, key: str) -> None:
        if moment == when and operation == "write" and not registry.checkpoints(run_key):
            (tmp_path / "fast").mkdir()
            (tmp_path / "fast" / "model.safetensors").write_text("fast")
            registry.put_checkpoint(run_key, 1, tmp_path / "fast")

    registry.probe_conditional_writes()
    late = Registry(faults.Interposed(store, overtake), "m")
    manifest = late.put_checkpoint(run_key, 1, model)
    assert [entry.path for entry in manifest.files] == ["model.safetensors"]
    verify_folder(tmp_path / "out", registry.get_checkpoint(run_key, 1, tmp_path / "out"))
    assert (tmp_path / "out" / "model.safetensors").read_text() == "fast"
    assert len(list(store.list(f"m/checkpoints/{run_key}/1"))) == 2


def test_a_version_is_found_by_its_weights_until_it_is_removed_and_then_another_one_may_be(
    registry: Registry, store: ObjectStore, clock: Clock, model: Path
) -> None:
    weights = "cd" * 32
    assert registry.find_weights(weights) is None
    first, second = _publish(registry, clock, model, True, True)
    registry.record_weights(weights, first)
    registry.record_weights(weights, second)
    found = registry.find_weights(weights)
    assert found and found.version == first
    registry.delete_version(first)
    assert registry.find_weights(weights) is None
    registry.record_weights(weights, second)
    found = registry.find_weights(weights)
    assert found and found.version == second
    store.write(f"m/weights/{weights}.json", b"{")
    assert registry.find_weights(weights) is None
