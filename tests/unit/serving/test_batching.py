"""The batching policy under a clock of its own: what leaves when, whatever arrives and whichever client disconnects."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_serving.replica.batching import BatchLimits, BatchQueue

pytestmark = pytest.mark.unit


@dataclass
class TextChunk:
    number: int
    size: int = 1
    cancelled: bool = False
    group: str | None = None


def queue(texts: int = 8, wait_s: float = 0.005) -> BatchQueue[TextChunk]:
    return BatchQueue(BatchLimits(texts, wait_s))


def test_while_idle_a_request_leaves_at_once() -> None:
    waiting = queue(wait_s=60)
    for number in range(3):
        waiting.add(TextChunk(number), now=float(number))
        assert [chunk.number for chunk in waiting.take(float(number))] == [number]
        waiting.returned("replica-1", float(number))


def test_while_the_only_replica_is_busy_requests_wait_for_each_other_and_no_longer_than_allowed() -> None:
    waiting = queue(wait_s=0.005)
    waiting.add(TextChunk(0), now=0.0)
    assert waiting.take(0.0)
    waiting.add(TextChunk(1), now=0.001)
    waiting.add(TextChunk(2), now=0.002)
    assert waiting.take(0.0059) == []
    assert waiting.next_due() == pytest.approx(0.006)
    assert [chunk.number for chunk in waiting.take(0.006)] == [1, 2]


def test_what_waits_leaves_as_soon_as_the_replica_is_free() -> None:
    waiting = queue(wait_s=60)
    waiting.add(TextChunk(0), now=0.0)
    assert waiting.take(0.0)
    waiting.add(TextChunk(1), now=0.0)
    assert waiting.take(1.0) == []
    waiting.returned("replica-1", 1.0)
    assert [chunk.number for chunk in waiting.take(1.0)] == [1]


def test_a_full_batch_does_not_wait() -> None:
    waiting = queue(texts=4, wait_s=60)
    waiting.add(TextChunk(0), now=0.0)
    assert waiting.take(0.0)
    for number in range(1, 5):
        assert waiting.take(0.0) == []
        waiting.add(TextChunk(number), now=0.0)
    assert [chunk.number for chunk in waiting.take(0.0)] == [1, 2, 3, 4]


def test_as_many_batches_leave_at_once_as_replicas_have_answered_lately() -> None:
    waiting = queue(wait_s=60)
    for replica in ("replica-1", "replica-2"):
        waiting.add(TextChunk(0), now=0.0)
        assert waiting.take(0.0)
        waiting.returned(replica, 0.0)
    for number in (1, 2, 3):
        waiting.add(TextChunk(number), now=1.0)
        assert bool(waiting.take(1.0)) is (number < 3)
    waiting.returned("replica-1", 100.0)
    waiting.returned("replica-1", 100.0)
    assert waiting.take(100.0)
    waiting.add(TextChunk(4), now=100.0)
    assert waiting.take(100.0) == [], "the second replica has answered nothing for a minute and a half"


def test_a_chunk_whose_client_has_disconnected_does_not_leave_and_does_not_fill_a_batch() -> None:
    waiting = queue(texts=4, wait_s=60)
    waiting.add(TextChunk(0), now=0.0)
    assert waiting.take(0.0)
    chunks = [TextChunk(number, size=2) for number in (1, 2, 3)]
    waiting.add(chunks[0], now=0.0)
    chunks[0].cancelled = True
    assert waiting.take(0.0) == []
    # Two of the four texts are those of a client that has disconnected.
    waiting.add(chunks[1], now=0.0)
    assert waiting.take(0.0) == []
    waiting.add(chunks[2], now=0.0)
    chunks[2].cancelled = True
    assert [chunk.number for chunk in waiting.take(60.0)] == [2]


def test_each_batch_that_returns_makes_room_for_one() -> None:
    waiting = queue(wait_s=0.005)
    for number in range(3):
        waiting.add(TextChunk(number), now=float(number))
        assert waiting.take(number + 0.005)
    waiting.returned("replica-1", 3.0)
    waiting.add(TextChunk(3), now=3.0)
    assert waiting.take(3.0) == [], "two batches are still in flight to the only replica"


def test_a_list_takes_turns_with_those_that_come_after_it() -> None:
    waiting = queue(texts=4)
    for number in range(6):
        waiting.add(TextChunk(number), now=0.0, after=number)
    assert [chunk.number for chunk in waiting.take(0.0)] == [0, 1, 2, 3]
    waiting.add(TextChunk(100), now=0.1)
    waiting.returned("replica-1", 0.1)
    assert [chunk.number for chunk in waiting.take(0.1)] == [100, 4, 5]


def test_a_list_has_its_turns_although_single_texts_never_stop_coming() -> None:
    waiting, left = queue(texts=1), []
    for number in range(5):
        waiting.add(TextChunk(number), now=0.0, after=number)
    for number in range(100, 112):
        waiting.add(TextChunk(number), now=0.0)
        left += [chunk.number for chunk in waiting.take(0.0)]
        waiting.returned("replica-1", 0.0)
    assert {0, 1, 2, 3, 4} <= set(left) and 100 in left[:2]


def test_one_batch_at_a_time_that_takes_about_as_long_as_asked() -> None:
    waiting: BatchQueue[TextChunk] = BatchQueue(BatchLimits(texts=32, target_s=0.05))
    for number in range(40):
        waiting.add(TextChunk(number), now=0.0)
    assert len(waiting.take(0.0)) == 32, "nothing is known yet of how long a text takes"
    assert waiting.take(9.0) == [] and waiting.next_due() is None
    waiting.returned("replica-1", 0.32, texts=32, took_s=0.32)
    for number in range(40):
        waiting.add(TextChunk(number), now=0.3)
    assert len(waiting.take(0.32)) == 5, "5 texts of 10 ms"
    waiting.returned("replica-1", 9.0, texts=5, took_s=5.0)
    assert len(waiting.take(9.0)) == 1, "never none"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(1, 8)),
        st.tuples(st.just("return"), st.integers(0, 2)),
        st.tuples(st.just("disconnect"), st.integers(0, 10)),
        st.tuples(st.just("wait"), st.integers(1, 8)),
    ),
    max_size=60,
)


@given(EVENTS, st.integers(1, 8))
def test_whatever_happens_chunks_leave_in_order_and_in_time(events: list[tuple[str, int]], room: int) -> None:
    waiting = queue(texts=room, wait_s=0.005)
    now, chunks, left, arrived = 0.0, [], [], {}
    for kind, value in [*events, ("wait", 6)]:
        if kind == "arrive":
            chunk = TextChunk(len(chunks), size=min(value, room))
            chunks.append(chunk)
            arrived[chunk.number] = now
            waiting.add(chunk, now)
        elif kind == "return" and waiting.in_flight:
            waiting.returned(f"replica-{value}", now)
        elif kind == "disconnect" and value < len(chunks) and chunks[value].number not in left:
            chunks[value].cancelled = True
        elif kind == "wait":
            now += value / 1000
        while batch := waiting.take(now):
            assert sum(chunk.size for chunk in batch) <= room
            assert not any(chunk.cancelled for chunk in batch)
            left += [chunk.number for chunk in batch]
        assert waiting.in_flight > 0 or waiting.next_due() is None, "nothing waits for an idle replica"
        overdue = [p for p in chunks if p.number not in left and not p.cancelled and now - arrived[p.number] > 0.0051]
        assert not overdue
    assert left == sorted(left)
    assert set(left) | {chunk.number for chunk in chunks if chunk.cancelled} == {chunk.number for chunk in chunks}


def test_a_batch_holds_the_chunks_of_one_adapter_and_the_oldest_chunk_decides_which() -> None:
    waiting = queue(texts=4, wait_s=60)
    for number, group in enumerate([None, "films", None, "films", "books"]):
        waiting.add(TextChunk(number, group=group), now=0.0)
    left = []
    for _ in range(3):
        left.append([chunk.number for chunk in waiting.take(0.0)])
        waiting.returned("replica-1", 0.0)
    assert left == [[0, 2], [1, 3], [4]]
    assert not waiting.waiting


def test_a_busy_adapter_does_not_starve_another() -> None:
    waiting = queue(texts=2, wait_s=60)
    waiting.add(TextChunk(-1, group="rare"), now=0.0)
    turns = 0
    while True:
        for number in range(4):
            waiting.add(TextChunk(number, group="busy"), now=0.0)
        batch = waiting.take(0.0)
        waiting.returned("replica-1", 0.0)
        turns += 1
        if batch[0].group == "rare":
            break
    assert turns == 1
    waiting.add(TextChunk(-2, group="rare"), now=0.0)
    turns = 0
    while waiting.take(0.0)[0].group != "rare":
        waiting.returned("replica-1", 0.0)
        waiting.add(TextChunk(9, group="busy"), now=0.0)
        turns += 1
    assert turns <= 3, "only what came before it goes before it"
