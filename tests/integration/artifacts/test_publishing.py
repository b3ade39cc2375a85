"""One run has one version, whoever races and whatever is killed; the protocol is in `luthier_artifacts.publishing`."""

from __future__ import annotations

import itertools
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier_artifacts import (
    Metadata,
    ObjectNotFound,
    PreconditionFailed,
    PublishedVersion,
    Registry,
    StorageUnavailable,
    open_store,
    verify_folder,
)
from luthier_artifacts.store import ObjectStore

RUN = "ab" * 32
NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def _registry(store: ObjectStore) -> Registry:
    """A registry whose clock stands still, so that every writer wants the same version id."""
    return Registry(store, "sentiment", clock=lambda: NOON, claim_grace_s=0)


def _only_version(registry: Registry) -> str:
    (version,) = registry.list_versions()
    return version


def _assert_whole(registry: Registry, published: PublishedVersion, into: Path) -> None:
    """The run has exactly this version, and all of its bytes are there."""
    assert _only_version(registry) == published.version
    found = registry.find_run(RUN)
    assert found is not None and found.manifest == published.manifest
    verify_folder(into, registry.download(published.version, into))


def test_a_version_is_found_by_its_run_and_not_published_twice(storage, model: Path, tmp_path: Path, faults) -> None:
    registry = _registry(open_store(storage.uri, storage.config))
    assert registry.find_run(RUN) is None
    sent: list[int] = []
    first = registry.publish(model, RUN, Metadata(metrics={"f1": 0.9}, labels=["no", "yes"]), progress=sent.append)
    assert (first.version, first.reused) == (f"20260131-120000-{RUN[:8]}", False)
    assert first.uri == f"{storage.uri}/sentiment/versions/{first.version}"
    assert sum(sent) == first.size_bytes == 10_246
    written: list[str] = []

    def note(when: str, operation: str, key: str) -> None:
        if operation == "write" and not key.endswith(".probe"):
            written.append(key)

    watched = _registry(faults.Interposed(open_store(storage.uri, storage.config), note))
    again = watched.publish(model, RUN, Metadata(metrics={"f1": 0.1}))
    assert written == []
    assert (again.version, again.reused, again.manifest.metrics) == (first.version, True, {"f1": 0.9})
    _assert_whole(registry, first, tmp_path / "out")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_write_leaves_no_version_or_a_whole_one_and_a_retry_ends_with_one(
    storage, model: Path, tmp_path: Path, faults, when: str
) -> None:
    outcomes = set()
    for number in itertools.count(1):
        place = open_store(f"{storage.uri}/{when}-{number}", storage.config)
        mortal = faults.MortalStore(place, number, when)
        registry = _registry(place)
        try:
            _registry(mortal).publish(model, RUN, Metadata())
        except faults.Killed:
            before_retry = registry.find_run(RUN)
            visible = registry.list_versions()
            assert visible == ([before_retry.version] if before_retry else [])
            outcomes.add(before_retry is not None)
            published = registry.publish(model, RUN, Metadata())
            assert published.reused == (before_retry is not None)
            _assert_whole(registry, published, tmp_path / f"out-{number}")
        else:
            assert mortal.writes == number - 1
            break
    # A reservation, three files, the pointer, the manifest.
    assert number == 7
    assert outcomes == ({False} if when == "before" else {False, True})


def test_of_sixteen_trainers_with_one_run_exactly_one_publishes(storage, model: Path, tmp_path: Path) -> None:
    def publish(number: int) -> PublishedVersion:
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        (folder / "weights").write_text(f"trained by {number}")
        registry = Registry(open_store(storage.uri, storage.config), "sentiment", clock=lambda: NOON)
        return registry.publish(folder, RUN, Metadata())

    with ThreadPoolExecutor(16) as pool:
        published = list(pool.map(publish, range(16)))
    assert len({one.version for one in published}) == 1
    assert [one.reused for one in published].count(False) == 1
    store = open_store(storage.uri, storage.config)
    _assert_whole(_registry(store), published[0], tmp_path / "out")
    files = [info.key for info in store.list("sentiment/versions") if not info.key.endswith(".reservation")]
    assert sorted(key.rpartition("/")[2] for key in files) == ["manifest.json", "weights"]


def test_a_trainer_that_was_thought_dead_gets_the_version_that_took_its_place(
    storage, model: Path, tmp_path: Path, faults
) -> None:
    store = open_store(storage.uri, storage.config)
    others: list[PublishedVersion] = []

    def overtake(when: str, operation: str, key: str) -> None:
        # The slow one has claimed the run and is about to write its manifest.
        if when == "before" and operation == "write" and key.endswith("manifest.json") and not others:
            others.append(_registry(store).publish(model, RUN, Metadata(labels=["fast"])))

    slow = _registry(faults.Interposed(store, overtake)).publish(model, RUN, Metadata(labels=["slow"]))
    assert (slow.version, slow.reused, slow.manifest.labels) == (others[0].version, True, ["fast"])
    _assert_whole(_registry(store), slow, tmp_path / "out")
    kept = {info.key.split("/")[2] for info in store.list("sentiment/versions") if info.key.endswith(".safetensors")}
    assert kept == {slow.version}


def test_a_write_whose_answer_was_lost_and_was_sent_again_still_counts(
    storage, model: Path, tmp_path: Path, faults
) -> None:
    store = open_store(storage.uri, storage.config)
    registry = _registry(store)
    registry.probe_conditional_writes()
    lost: list[str] = []

    def lose(when: str, operation: str, key: str) -> None:
        # The client library repeats a request that got no answer; the second one is refused.
        if when == "after" and operation == "write" and key.endswith((".reservation", f"{RUN}.json", "manifest.json")):
            lost.append(key.rpartition("/")[2])
            raise PreconditionFailed(key)

    interposed = faults.Interposed(store, lose)
    loser = Registry(interposed, "sentiment", clock=lambda: NOON, claim_grace_s=0)
    published = loser.publish(model, RUN, Metadata())
    assert not published.reused
    assert lost == [".reservation", f"{RUN}.json", "manifest.json"]
    _assert_whole(registry, published, tmp_path / "out")


def test_storage_that_fails_in_the_middle_is_an_error_and_a_retry_publishes(
    storage, model: Path, tmp_path: Path, faults
) -> None:
    store = open_store(storage.uri, storage.config)

    def fail(when: str, operation: str, key: str) -> None:
        if key.endswith(".safetensors"):
            raise StorageUnavailable("no answer")

    with pytest.raises(StorageUnavailable):
        _registry(faults.Interposed(store, fail)).publish(model, RUN, Metadata())
    assert _registry(store).list_versions() == []
    _assert_whole(_registry(store), _registry(store).publish(model, RUN, Metadata()), tmp_path / "out")


def test_a_damaged_pointer_counts_as_none(storage, model: Path, tmp_path: Path) -> None:
    store = open_store(storage.uri, storage.config)
    for damage in (b"", b"{", b'{"version": "../../x", "runKey": "", "writer": "", "claimedAt": ""}'):
        store.write(f"sentiment/runs/{RUN}.json", damage)
        assert _registry(store).find_run(RUN) is None
    _assert_whole(_registry(store), _registry(store).publish(model, RUN, Metadata()), tmp_path / "out")


def test_a_pointer_to_a_version_of_another_run_counts_as_none(storage, model: Path, tmp_path: Path) -> None:
    store = open_store(storage.uri, storage.config)
    registry = _registry(store)
    other = registry.publish(model, "cd" * 32, Metadata())
    pointer = store.read(f"sentiment/runs/{'cd' * 32}.json")[0].decode()
    for damage in (pointer, pointer.replace("cd" * 32, RUN)):
        store.write(f"sentiment/runs/{RUN}.json", damage.encode())
        assert registry.find_run(RUN) is None
        published = registry.publish(model, RUN, Metadata())
        assert not published.reused and published.version != other.version
        assert registry.find_run(RUN) == replace(published, reused=True)
        registry.delete_version(published.version)


def test_a_pointer_of_another_run_does_not_end_what_that_run_is_about_to_publish(storage, model: Path, faults) -> None:
    store = open_store(storage.uri, storage.config)
    mortal = faults.MortalStore(store, 6, "before")
    with pytest.raises(faults.Killed):
        _registry(mortal).publish(model, "cd" * 32, Metadata())
    pointer, _ = store.read(f"sentiment/runs/{'cd' * 32}.json")
    store.write(f"sentiment/runs/{RUN}.json", pointer)
    assert not _registry(store).publish(model, RUN, Metadata()).reused
    (claimed,) = {info.key.split("/")[2] for info in store.list("sentiment/versions") if "cdcdcdcd" in info.key}
    with pytest.raises(ObjectNotFound):
        store.stat(f"sentiment/versions/{claimed}/manifest.json")


def test_a_version_that_is_published_again_in_the_same_second_is_named_after_the_next(storage, model: Path) -> None:
    registry = _registry(open_store(storage.uri, storage.config))
    registry.delete_version(registry.publish(model, RUN, Metadata()).version)
    again = registry.publish(model, RUN, Metadata())
    assert (again.version, again.reused) == (f"20260131-120001-{RUN[:8]}", False)
    assert again.manifest.created_at == "2026-01-31T12:00:01Z"


class _Scheduler:
    """Lets one of several threads take one step at a time, in an order that the test chooses."""

    def __init__(self, killed: type[BaseException]) -> None:
        self._killed = killed
        self._turn = [threading.Semaphore(0) for _ in range(3)]
        self._yielded = threading.Semaphore(0)
        self._dead = [False] * 3

    def gate(self, number: int) -> None:
        self._yielded.release()
        self._turn[number].acquire()
        if self._dead[number]:
            raise self._killed

    def finished(self) -> None:
        self._yielded.release()

    def wait(self) -> None:
        self._yielded.acquire()

    def step(self, number: int, kill: bool) -> None:
        self._dead[number] |= kill
        self._turn[number].release()
        self.wait()


def _leave_behind(store: ObjectStore, scratch: Path, faults, at_write: int) -> None:
    """What a trainer leaves that was killed after its reservation, its file, its claim or its manifest."""
    (scratch / "earlier").mkdir()
    (scratch / "earlier" / "weights").write_text("trained earlier")
    registry = _registry(faults.MortalStore(store, at_write, "after"))
    with pytest.raises(faults.Killed):
        registry.publish(scratch / "earlier", RUN, Metadata())


# Few changes of turn find most races, so a turn lasts for several steps, which are requests to storage.
turns = st.tuples(st.integers(0, 2), st.integers(1, 12), st.integers(0, 9).map(lambda number: number == 0))


@pytest.mark.unit
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.lists(turns, max_size=12), killed_earlier_at=st.integers(0, 4))
def test_in_every_interleaving_of_three_trainers_at_most_one_version_is_ever_visible(
    faults, schedule: list[tuple[int, int, bool]], killed_earlier_at: int
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        folder = Path(scratch)
        store = open_store(f"file://{folder}/storage")
        observer = _registry(store)
        observer.probe_conditional_writes()
        if killed_earlier_at:
            _leave_behind(store, folder, faults, killed_earlier_at)
        scheduler = _Scheduler(faults.Killed)
        results: dict[int, PublishedVersion] = {}
        running = {0, 1, 2}

        def trainer(number: int) -> None:
            def gate(when: str, operation: str, key: str) -> None:
                if when == "before" and not key.endswith(".probe"):
                    scheduler.gate(number)

            model = folder / f"model-{number}"
            model.mkdir()
            (model / "weights").write_text(f"trained by {number}")
            try:
                registry = _registry(faults.Interposed(store, gate))
                results[number] = registry.publish(model, RUN, Metadata())
            except faults.Killed:
                pass
            finally:
                running.discard(number)
                scheduler.finished()

        threads = [threading.Thread(target=trainer, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
            scheduler.wait()
        seen: list[str] = []
        steps = [(number, kill and step == 0) for number, count, kill in schedule for step in reversed(range(count))]
        for number, kill in itertools.chain(steps, itertools.cycle((number, False) for number in range(3))):
            if not running:
                break
            if number in running:
                scheduler.step(number, kill)
            visible = observer.list_versions()
            assert len(visible) <= 1, "two versions of one run"
            assert not seen or visible == seen, "a version went away"
            seen = visible
        for thread in threads:
            thread.join()
        published = observer.publish(folder / "model-0", RUN, Metadata())
        assert {one.version for one in results.values()} <= {published.version}
        assert sum(not one.reused for one in results.values()) <= 1
        _assert_whole(observer, published, folder / "out")
