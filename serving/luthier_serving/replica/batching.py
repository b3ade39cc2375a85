"""When a batch leaves: the policy of one revision's queue, without clock, event loop or network.

A chunk is a part of a request that is never divided: one text, or up to a batch of them. Chunks leave in order:

- at once while a replica is idle, so that a single client does not wait for a batch to fill;
- when a batch is full;
- when the oldest has waited for the maximum time, so that a replica always has work and Ray's autoscaler sees the load.

How many replicas there are is learned from the answers. `revision_queue` drives this with real time.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

REPLICA_MEMORY_S = 30.0


class Chunk(Protocol):
    """A part of a request that may leave in a batch."""

    @property
    def size(self) -> int:
        """Number of texts."""

    @property
    def cancelled(self) -> bool:
        """Whether the client no longer waits for the answer."""


ChunkT = TypeVar("ChunkT", bound=Chunk)


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be (texts) and how long a chunk may wait for others (seconds)."""

    texts: int
    wait_s: float


@dataclass
class BatchQueue(Generic[ChunkT]):
    """The chunks that wait for one revision, and the number of batches in flight to it."""

    limits: BatchLimits
    in_flight: int = 0
    _chunks: deque[tuple[float, ChunkT]] = field(default_factory=deque)
    _texts: int = 0
    _replicas: dict[str, float] = field(default_factory=dict)

    def add(self, chunk: ChunkT, now: float) -> None:
        """Append a chunk."""
        self._chunks.append((now, chunk))
        self._texts += chunk.size

    def take(self, now: float) -> list[ChunkT]:
        """Return the chunks that leave together now, and count them as in flight; empty if none should leave."""
        self._drop_cancelled()
        if not self._chunks or not self._should_leave(now):
            return []
        batch: list[ChunkT] = []
        room = self.limits.texts
        while self._chunks and (not batch or self._chunks[0][1].size <= room):
            _, chunk = self._chunks.popleft()
            self._texts -= chunk.size
            if not chunk.cancelled:
                batch.append(chunk)
                room -= chunk.size
        self.in_flight += 1
        return batch

    def returned(self, replica: str | None, now: float) -> None:
        """Record that a batch has come back, and which replica answered it, if any did."""
        self.in_flight -= 1
        if replica is not None:
            self._replicas[replica] = now
        if len(self._replicas) > 1:
            self._replicas = {name: seen for name, seen in self._replicas.items() if now - seen <= REPLICA_MEMORY_S}

    def next_due(self) -> float | None:
        """Return the time at which the oldest chunk has waited for the maximum time, or None if no chunk waits."""
        self._drop_cancelled()
        return self._chunks[0][0] + self.limits.wait_s if self._chunks else None

    def _should_leave(self, now: float) -> bool:
        idle = self.in_flight < max(1, len(self._replicas))
        return idle or self._texts >= self.limits.texts or now >= self._chunks[0][0] + self.limits.wait_s

    def _drop_cancelled(self) -> None:
        while self._chunks and self._chunks[0][1].cancelled:
            self._texts -= self._chunks.popleft()[1].size
