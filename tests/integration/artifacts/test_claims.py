"""Of runs that would train the same at once one trains: `luthier_artifacts.claims`, on a folder and on a server."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from luthier_artifacts import Claim, Holder, PreconditionFailed, StorageUnavailable, open_store
from luthier_artifacts.store import ObjectStore
from luthier_dev.waiting import wait_until

KEY = "ab" * 32
PLACE = f"sentiment/claims/{KEY}.json"
LAPSE_S = 60.0


@dataclass
class Clock:
    """A process's own monotonic clock."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Side:
    """One process that claims."""

    store: ObjectStore
    name: str
    trains: bool = True
    clock: Clock = field(default_factory=Clock)
    lapse_s: float = LAPSE_S

    def __post_init__(self) -> None:
        holder = Holder(f"uid of {self.name}", f"run {self.name}")
        self.claim = Claim(self.store, PLACE, KEY, holder, trains=self.trains, lapse_s=self.lapse_s, clock=self.clock)

    def take(self) -> str | None:
        """Who holds the claim, or None once it is this side's."""
        other = self.claim.take()
        return other.about if other else None

    def looks(self, seconds: float) -> str | None:
        """Ask every few seconds for so long, as who waits does; return who holds the claim at the end."""
        found = self.take()
        for _ in range(round(seconds / self.claim.beat_s)):
            self.clock.now += self.claim.beat_s
            found = self.take()
        return found


@pytest.fixture
def store(storage: Any) -> ObjectStore:
    return open_store(storage.uri, storage.config)


def test_of_sixteen_runs_that_start_at_once_one_trains_and_the_others_learn_which(store: ObjectStore) -> None:
    sides = [Side(store, str(number)) for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(Side.take, sides))
    (winner,) = [side for side, other in zip(sides, found, strict=True) if other is None]
    assert {other for other in found if other} == {f"run {winner.name}"}


def test_a_claim_lapses_after_it_was_seen_unchanged_for_long_enough_and_not_while_it_beats(store: ObjectStore) -> None:
    first, second = Side(store, "first"), Side(store, "second")
    assert first.take() is None
    for _ in range(20):
        assert second.looks(LAPSE_S - 2 * second.claim.beat_s) == "run first"
        first.claim.beat()
    assert second.looks(LAPSE_S - second.claim.beat_s) == "run first"
    assert second.looks(LAPSE_S) is None


def test_time_in_which_nobody_looked_lets_no_claim_lapse(store: ObjectStore) -> None:
    """As after an outage of storage for all, or when the process that waits was stopped or slept."""
    first, second = Side(store, "first"), Side(store, "second")
    first.take()
    assert second.take() == "run first"
    second.clock.now += 1e6
    assert second.take() == "run first"
    first.claim.beat()
    assert second.looks(LAPSE_S - second.claim.beat_s) == "run first"


def test_clocks_of_different_machines_are_never_compared(store: ObjectStore) -> None:
    first, second = Side(store, "first", clock=Clock(1e9)), Side(store, "second", clock=Clock(-1e9))
    assert (first.take(), second.take()) == (None, "run first")
    assert second.looks(LAPSE_S) is None


def test_a_run_that_hung_learns_from_its_next_heartbeat_whose_the_claim_is_and_leaves_it_alone(
    store: ObjectStore,
) -> None:
    hung, other = Side(store, "hung"), Side(store, "other")
    hung.take()
    assert other.looks(LAPSE_S) is None
    hung.claim.beat()
    assert hung.claim.lost_to and hung.claim.lost_to.about == "run other"
    hung.claim.release()
    hung.claim.delete()
    other.claim.beat()
    assert other.claim.lost_to is None
    assert Side(store, "third").take() == "run other"


def test_a_heartbeat_that_arrives_after_the_takeover_is_refused(store: ObjectStore, faults: Any) -> None:
    overtaken: list[str | None] = []

    def overtake(when: str, operation: str, key: str) -> None:
        if when == "before" and operation == "write" and not overtaken and hung.claim._beats > 1:
            overtaken.append(Side(store, "other").looks(LAPSE_S))

    hung = Side(faults.Interposed(store, overtake), "hung")
    hung.take()
    hung.claim.beat()
    assert overtaken == [None]
    assert hung.claim.lost_to and hung.claim.lost_to.about == "run other"
    assert Side(store, "third").take() == "run other"


def test_the_next_pod_of_a_run_takes_its_own_claim_over_at_once_and_the_old_one_gives_way(store: ObjectStore) -> None:
    old, new = Side(store, "first"), Side(store, "first")
    assert (old.take(), new.take()) == (None, None)
    old.claim.beat()
    assert old.claim.lost_to and old.claim.lost_to.about == "run first"
    new.claim.beat()
    assert new.claim.lost_to is None


def test_what_is_only_announced_gives_way_to_who_trains_and_holds_back_who_prepares(store: ObjectStore) -> None:
    prepares, twin, trains = Side(store, "a", trains=False), Side(store, "b", trains=False), Side(store, "c")
    assert (prepares.take(), twin.take(), trains.take()) == (None, "run a", None)
    prepares.claim.beat()
    assert prepares.claim.lost_to and prepares.claim.lost_to.about == "run c"
    assert twin.take() == "run c"


def test_who_trains_takes_a_claim_back_that_was_only_announced_while_it_hung(store: ObjectStore) -> None:
    hung, prepares = Side(store, "hung"), Side(store, "other", trains=False)
    hung.take()
    assert prepares.looks(LAPSE_S) is None
    hung.claim.beat()
    assert hung.claim.lost_to is None
    assert Side(store, "third").take() == "run hung"


def test_a_claim_that_is_given_back_or_deleted_is_free_at_once(store: ObjectStore) -> None:
    first, second, third = (Side(store, name) for name in ("first", "second", "third"))
    first.take()
    first.claim.release()
    assert second.take() is None
    second.claim.delete()
    assert list(store.list("sentiment/claims")) == []
    assert third.take() is None


def test_a_claim_that_somebody_deleted_or_damaged_is_written_again_with_the_next_heartbeat(store: ObjectStore) -> None:
    first = Side(store, "first")
    first.take()
    store.delete([PLACE])
    first.claim.beat()
    assert Side(store, "second").take() == "run first"
    store.write(PLACE, b'{"key": ')
    first.claim.beat()
    assert first.claim.lost_to is None
    assert Side(store, "second").take() == "run first"
    store.write(PLACE, b"nonsense")
    assert Side(store, "second").take() is None
    store.write(PLACE, store.read(PLACE)[0].replace(b"run second", b"a run " + b"!" * 5000))
    assert Side(store, "third").take() is None, "what nobody could show is damaged too"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_write_leaves_a_claim_that_the_next_pod_takes_at_once_and_another_run_when_it_has_lapsed(
    storage: Any, faults: Any, when: str
) -> None:
    for number in itertools.count(1):
        for follows in ("same", "other"):
            place = open_store(f"{storage.uri}/{when}-{number}-{follows}", storage.config)
            mortal = faults.MortalStore(place, number, when)
            side = Side(mortal, "same")
            try:
                side.take()
                side.claim.beat()
                side.claim.release()
                side.take()
                side.claim.delete()
            except faults.Killed:
                after = Side(place, follows)
                assert (after.take() if follows == "same" else after.looks(LAPSE_S)) is None
            else:
                assert number == 6  # take, heartbeat, release, take, delete
                return


def test_a_write_whose_answer_was_lost_and_was_sent_again_still_counts(store: ObjectStore, faults: Any) -> None:
    lost: list[str] = []

    def lose(when: str, operation: str, key: str) -> None:
        # The client library repeats a request that got no answer; the second one is refused.
        if when == "after" and operation == "write" and lose_next:
            lost.append(lose_next.pop())
            raise PreconditionFailed(key)

    lose_next = ["take"]
    side = Side(faults.Interposed(store, lose), "first")
    assert side.take() is None
    lose_next.append("beat")
    side.claim.beat()
    assert side.claim.lost_to is None
    lose_next.append("release")
    side.claim.release()
    assert lost == ["take", "beat", "release"]
    assert Side(store, "second").take() is None


def test_heartbeats_go_on_through_an_outage_of_storage_until_the_claim_is_another_runs(
    store: ObjectStore, faults: Any
) -> None:
    down, beats = False, 0

    def fail(when: str, operation: str, key: str) -> None:
        nonlocal beats
        if when == "before" and down:
            beats += 1
            raise StorageUnavailable("storage does not answer")

    first = Side(faults.Interposed(store, fail), "first", lapse_s=0.3)
    first.take()
    before = store.read(PLACE)[1]
    first.claim.keep_alive()
    wait_until(lambda: None if store.read(PLACE)[1] != before else "no change", "a heartbeat", 30, interval_s=0.02)
    down = True
    wait_until(lambda: None if beats > 2 else "none", "heartbeats that fail", 30, interval_s=0.02)
    down = False
    before = store.read(PLACE)[1]
    wait_until(lambda: None if store.read(PLACE)[1] != before else "no change", "a heartbeat", 30, interval_s=0.02)
    down = True
    second = Side(store, "second")
    wait_until(lambda: second.looks(LAPSE_S), "a claim that has lapsed", 30, interval_s=0.02)
    down = False
    wait_until(lambda: None if first.claim.lost_to else "not lost", "that it is lost", 30, interval_s=0.02)
    first.claim.stop()
    assert Side(store, "third").take() == "run second"


def test_a_release_that_storage_refuses_does_not_hide_why_the_run_ended(store: ObjectStore, faults: Any) -> None:
    down = False

    def fail(when: str, operation: str, key: str) -> None:
        if down:
            raise StorageUnavailable("storage does not answer")

    side = Side(faults.Interposed(store, fail), "first")
    side.take()
    down = True
    side.claim.release()
    side.claim.delete()
