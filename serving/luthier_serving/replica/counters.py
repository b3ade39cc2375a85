"""What became of the requests to each revision since the window began: what the operator judges a rollout by.

A window is named by the configuration; a new name begins at zero, so the operator only adds up what the replicas
report and keeps no earlier counts to subtract. Ray's metrics (`metrics`) are for people's dashboards and run on.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from luthier_api.documents import LATENCY_BUCKETS_PER_OCTAVE, RevisionCounts
from luthier_serving.replica.agreement import Agreement

_MAX_FLIPS = 100


@dataclass
class _Counts:
    requests: int = 0
    errors: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    compared: int = 0
    agreement: float = 0.0
    confidence_shift: float = 0.0
    flips: Counter[str] = field(default_factory=Counter)
    dropped: int = 0


class Counters:
    """The counts of one window."""

    def __init__(self) -> None:
        self.window = ""
        self._counts: dict[str, _Counts] = {}

    def begin(self, window: str) -> None:
        """Count from zero if the window is another than before."""
        if window != self.window:
            self.window = window
            self._counts = {}

    def observe(self, revision: str, seconds: float, *, failed: bool) -> None:
        """Record a request to a revision, from its choice to its answer."""
        counts = self._of(revision)
        counts.requests += 1
        counts.errors += failed
        if not failed:
            counts.latency[bucket(seconds)] += 1

    def compare(self, revision: str, agreement: Agreement) -> None:
        """Record how the answer of a revision to a copy agrees with the stable revision's."""
        counts = self._of(revision)
        counts.compared += 1
        counts.agreement += agreement.share
        counts.confidence_shift += agreement.confidence_shift
        if agreement.flip and (agreement.flip in counts.flips or len(counts.flips) < _MAX_FLIPS):
            counts.flips[agreement.flip] += 1

    def drop(self, revision: str) -> None:
        """Record a copy that was not made."""
        self._of(revision).dropped += 1

    def report(self) -> dict[str, RevisionCounts]:
        """Return the counts by revision."""
        return {
            revision: RevisionCounts(
                requests=counts.requests,
                errors=counts.errors,
                latency=dict(counts.latency),
                compared=counts.compared,
                agreement=round(counts.agreement, 6),
                confidence_shift=round(counts.confidence_shift, 6),
                flips=dict(counts.flips),
                dropped=counts.dropped,
            )
            for revision, counts in self._counts.items()
        }

    def _of(self, revision: str) -> _Counts:
        return self._counts.setdefault(revision, _Counts())


def bucket(seconds: float) -> int:
    """Return the key of a time in `RevisionCounts.latency`."""
    milliseconds = max(seconds * 1000, 2.0**-8)
    return math.ceil(math.log2(milliseconds) * LATENCY_BUCKETS_PER_OCTAVE)
