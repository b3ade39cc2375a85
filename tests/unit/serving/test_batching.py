"""The batching policy under a clock of its own: who leaves when, whatever arrives and whoever gives up."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_serving.replica.batching import BatchLimits, BatchQueue

pytestmark = pytest.mark.unit


@dataclass
class Piece:
    number: int
    size: int = 1
    abandoned: bool = False


def queue(texts: int = 8, wait_s: float = 0.005) -> BatchQueue[Piece]:
    return BatchQueue(BatchLimits(texts, wait_s))


def test_while_idle_a_request_leaves_at_once() -> None:
    lane = queue(wait_s=60)
    for number in range(3):
        lane.add(Piece(number), now=float(number))
        assert [piece.number for piece in lane.take(float(number))] == [number]
        lane.returned("replica-1", float(number))


def test_while_the_only_replica_is_busy_requests_wait_for_each_other_and_no_longer_than_allowed() -> None:
    lane = queue(wait_s=0.005)
    lane.add(Piece(0), now=0.0)
    assert lane.take(0.0)
    lane.add(Piece(1), now=0.001)
    lane.add(Piece(2), now=0.002)
    assert lane.take(0.0059) == []
    assert lane.next_due() == pytest.approx(0.006)
    assert [piece.number for piece in lane.take(0.006)] == [1, 2]


def test_those_who_wait_leave_as_soon_as_the_replica_is_free() -> None:
    lane = queue(wait_s=60)
    lane.add(Piece(0), now=0.0)
    assert lane.take(0.0)
    lane.add(Piece(1), now=0.0)
    assert lane.take(1.0) == []
    lane.returned("replica-1", 1.0)
    assert [piece.number for piece in lane.take(1.0)] == [1]


def test_a_full_batch_does_not_wait() -> None:
    lane = queue(texts=4, wait_s=60)
    lane.add(Piece(0), now=0.0)
    assert lane.take(0.0)
    for number in range(1, 5):
        assert lane.take(0.0) == []
        lane.add(Piece(number), now=0.0)
    assert [piece.number for piece in lane.take(0.0)] == [1, 2, 3, 4]


def test_as_many_batches_leave_at_once_as_replicas_have_answered_lately() -> None:
    lane = queue(wait_s=60)
    for replica in ("replica-1", "replica-2"):
        lane.add(Piece(0), now=0.0)
        assert lane.take(0.0)
        lane.returned(replica, 0.0)
    for number in (1, 2, 3):
        lane.add(Piece(number), now=1.0)
        assert bool(lane.take(1.0)) is (number < 3)
    lane.returned("replica-1", 100.0)
    lane.returned("replica-1", 100.0)
    assert lane.take(100.0)
    lane.add(Piece(4), now=100.0)
    assert lane.take(100.0) == [], "the second replica has not been heard of for a minute and a half"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(1, 8)),
        st.tuples(st.just("return"), st.integers(0, 2)),
        st.tuples(st.just("give up"), st.integers(0, 10)),
        st.tuples(st.just("wait"), st.integers(1, 8)),
    ),
    max_size=60,
)


@given(EVENTS, st.integers(1, 8))
def test_whatever_happens_pieces_leave_in_order_and_in_time(events: list[tuple[str, int]], room: int) -> None:
    lane = queue(texts=room, wait_s=0.005)
    now, pieces, left, arrived = 0.0, [], [], {}
    for kind, value in [*events, ("wait", 6)]:
        if kind == "arrive":
            piece = Piece(len(pieces), size=min(value, room))
            pieces.append(piece)
            arrived[piece.number] = now
            lane.add(piece, now)
        elif kind == "return" and lane.in_flight:
            lane.returned(f"replica-{value}", now)
        elif kind == "give up" and value < len(pieces) and pieces[value].number not in left:
            pieces[value].abandoned = True
        elif kind == "wait":
            now += value / 1000
        while batch := lane.take(now):
            assert sum(piece.size for piece in batch) <= room
            assert not any(piece.abandoned for piece in batch)
            left += [piece.number for piece in batch]
        assert lane.in_flight > 0 or lane.waiting == 0, "nothing waits for an idle replica"
        overdue = [p for p in pieces if p.number not in left and not p.abandoned and now - arrived[p.number] > 0.0051]
        assert not overdue
    assert left == sorted(left)
    assert set(left) | {piece.number for piece in pieces if piece.abandoned} == {piece.number for piece in pieces}
