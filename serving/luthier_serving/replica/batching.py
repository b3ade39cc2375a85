"""When a batch leaves: the policy of one lane, without clock, event loop or network.

A piece is the part of a request that travels whole: one text, or up to a batch of them. Pieces leave in order:

- at once while a replica is idle, so that a single client pays nothing for batching;
- when a batch is full;
- when the oldest has waited for as long as it may: a replica always has work, and Ray's autoscaler sees the load.

How many replicas there are is learned from their answers: the front asks nobody. `lane` drives this with real time.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

REPLICA_MEMORY_S = 30.0


class Waiting(Protocol):
    """Something that may leave in a batch."""

    @property
    def size(self) -> int:
        """Texts in it."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for its answer any more."""


PieceT = TypeVar("PieceT", bound=Waiting)


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be (texts) and how long a piece may wait for others (seconds)."""

    texts: int
    wait_s: float


@dataclass
class BatchQueue(Generic[PieceT]):
    """Pieces that wait for one revision, and how many batches are on their way to it."""

    limits: BatchLimits
    in_flight: int = 0
    _pieces: deque[tuple[float, PieceT]] = field(default_factory=deque)
    _texts: int = 0
    _replicas: dict[str, float] = field(default_factory=dict)

    def add(self, piece: PieceT, now: float) -> None:
        """Let a piece wait."""
        self._pieces.append((now, piece))
        self._texts += piece.size

    def take(self, now: float) -> list[PieceT]:
        """Return the pieces that leave together now; empty when none should leave. Counts them as on their way."""
        self._drop_abandoned()
        if not self._pieces or not self._should_leave(now):
            return []
        batch: list[PieceT] = []
        room = self.limits.texts
        while self._pieces and (not batch or self._pieces[0][1].size <= room):
            _, piece = self._pieces.popleft()
            self._texts -= piece.size
            if not piece.abandoned:
                batch.append(piece)
                room -= piece.size
        self.in_flight += 1
        return batch

    def returned(self, replica: str | None, now: float) -> None:
        """Note that a batch has come back, and from which replica if it was answered."""
        self.in_flight -= 1
        if replica is not None:
            self._replicas[replica] = now
        if len(self._replicas) > 1:
            self._replicas = {name: seen for name, seen in self._replicas.items() if now - seen <= REPLICA_MEMORY_S}

    def next_due(self) -> float | None:
        """Return the time at which the oldest piece has waited long enough, or None when none waits."""
        self._drop_abandoned()
        return self._pieces[0][0] + self.limits.wait_s if self._pieces else None

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return len(self._pieces)

    def _should_leave(self, now: float) -> bool:
        idle = self.in_flight < max(1, len(self._replicas))
        return idle or self._texts >= self.limits.texts or now >= self._pieces[0][0] + self.limits.wait_s

    def _drop_abandoned(self) -> None:
        while self._pieces and self._pieces[0][1].abandoned:
            self._texts -= self._pieces.popleft()[1].size
