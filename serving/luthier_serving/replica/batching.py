"""When a batch leaves, and what is in it: the policy of one revision's queue, without clock, event loop or network.

A chunk is a part of a request that is never divided: one text, or a few of a list; a batch holds those of one
adapter. The n-th chunk of a request takes its turn as if it had come n turns later, so a list of a thousand texts lets
everybody else pass between its chunks. A turn is a batch that leaves, or the turn of the last chunk in it.

A revision in this process computes one batch at a time: the next leaves when that has come back, and holds no more than
takes about `target_s`, so that whoever comes in meanwhile waits no longer. A revision of its own gets its batches

- at once while a replica is idle, so that a single client does not wait for a batch to fill;
- when a batch is full;
- when the next has waited for the maximum time, so that a replica always has work and Ray's autoscaler sees the load.

How many replicas there are is learned from the answers. `revision_queue` drives this with real time.
"""

import heapq
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

REPLICA_MEMORY_S = 30.0
# Share of the newest batch in what a text is expected to take.
SMOOTHING = 0.2


class Chunk(Protocol):
    """A part of a request that may leave in a batch."""

    @property
    def size(self) -> int:
        """Number of texts."""

    @property
    def cancelled(self) -> bool:
        """Whether the client no longer waits for the answer."""

    @property
    def group(self) -> str | None:
        """What a batch holds only one of: the adapter that the chunk is for."""


ChunkT = TypeVar("ChunkT", bound=Chunk)


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be, and when it leaves.

    Attributes:
        texts: texts of a batch at most.
        wait_s: how long a chunk may wait for others while every replica is busy.
        target_s: if set, one batch at a time is computed, of about so many seconds.
        silence_s: if set, a revision that has batches and sends nothing back for so long hangs: those who wait are
            told, and those who come before it does are not kept waiting.
    """

    texts: int
    wait_s: float = 0.0
    target_s: float | None = None
    silence_s: float | None = None


class _Entry(NamedTuple, Generic[ChunkT]):
    turn: int
    number: int
    arrived: float
    chunk: ChunkT


@dataclass
class BatchQueue(Generic[ChunkT]):
    """The chunks that wait for one revision, and the number of batches in flight to it."""

    limits: BatchLimits
    in_flight: int = 0
    _chunks: list[_Entry[ChunkT]] = field(default_factory=list)
    _texts: int = 0
    _added: int = 0
    _turn: int = 0
    _replicas: dict[str, float] = field(default_factory=dict)
    _text_s: float = 0.0

    @property
    def waiting(self) -> bool:
        """Whether a client waits for a chunk that has not left."""
        self._drop_cancelled()
        return bool(self._chunks)

    @property
    def texts(self) -> int:
        """Number of texts that wait; some of clients that have left may still count."""
        self._drop_cancelled()
        return self._texts

    def oldest_s(self, now: float) -> float:
        """Return how long what came first has waited."""
        self._drop_cancelled()
        return now - min((entry.arrived for entry in self._chunks), default=now)

    @property
    def chunks(self) -> list[ChunkT]:
        """The chunks that have not left, in any order."""
        return [entry.chunk for entry in self._chunks]

    def add(self, chunk: ChunkT, now: float, after: int = 0) -> None:
        """Append a chunk that comes `after` so many others of its request."""
        heapq.heappush(self._chunks, _Entry(self._turn + after, self._added, now, chunk))
        self._added += 1
        self._texts += chunk.size

    def take(self, now: float) -> list[ChunkT]:
        """Return the chunks that leave together now, and count them as in flight; empty if none should leave."""
        self._drop_cancelled()
        if not self._chunks or not self._should_leave(now):
            return []
        batch: list[ChunkT] = []
        room = self._room()
        # Each batch is a turn: a list has its own however many single texts come meanwhile.
        turn = self._turn + 1
        others: list[_Entry[ChunkT]] = []
        while self._chunks:
            chunk = self._chunks[0].chunk
            if batch and chunk.group != batch[0].group:
                others.append(heapq.heappop(self._chunks))
                continue
            if batch and chunk.size > room:
                break
            entry = heapq.heappop(self._chunks)
            self._texts -= entry.chunk.size
            if not entry.chunk.cancelled:
                turn = max(turn, entry.turn)
                batch.append(entry.chunk)
                room -= entry.chunk.size
        for entry in others:
            heapq.heappush(self._chunks, entry)
        self._turn = turn
        self.in_flight += 1
        return batch

    def returned(self, replica: str | None, now: float, *, texts: int = 0, took_s: float = 0.0) -> None:
        """Record that a batch has come back, which replica answered it, if any did, and how long its texts took."""
        self.in_flight -= 1
        if replica is not None:
            self._replicas[replica] = now
        if replica is not None and texts:
            text_s = took_s / texts
            self._text_s = text_s if not self._text_s else self._text_s + SMOOTHING * (text_s - self._text_s)
        if len(self._replicas) > 1:
            self._replicas = {name: seen for name, seen in self._replicas.items() if now - seen <= REPLICA_MEMORY_S}

    def next_due(self) -> float | None:
        """Return when the next chunk has waited for the maximum time, or None if time alone lets nothing leave."""
        self._drop_cancelled()
        if not self._chunks or self.limits.target_s is not None:
            return None
        return self._chunks[0].arrived + self.limits.wait_s

    def _should_leave(self, now: float) -> bool:
        if self.limits.target_s is not None:
            return self.in_flight == 0
        idle = self.in_flight < max(1, len(self._replicas))
        return idle or self._texts >= self.limits.texts or now >= self._chunks[0].arrived + self.limits.wait_s

    def _room(self) -> int:
        if self.limits.target_s is None or not self._text_s:
            return self.limits.texts
        return max(1, min(self.limits.texts, round(self.limits.target_s / self._text_s)))

    def _drop_cancelled(self) -> None:
        while self._chunks and self._chunks[0].chunk.cancelled:
            self._texts -= heapq.heappop(self._chunks).chunk.size
