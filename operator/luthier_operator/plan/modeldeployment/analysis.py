"""Whether a new revision keeps to what the spec asks of it, from the counts of the server replicas. Pure.

Counts are of the present step, summed over the replicas. Too few requests are inconclusive: neither good nor bad.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from luthier_api.base import decimal_text
from luthier_api.documents import LATENCY_BUCKETS_PER_OCTAVE, RevisionCounts, ServerReport
from luthier_api.modeldeployment import Analysis

QUANTILE = 0.99


@dataclass(frozen=True)
class Figures:
    """What became of the requests to one revision in a step."""

    requests: int = 0
    errors: int = 0
    p99_ms: float | None = None
    compared: int = 0
    agreement: float = 0.0
    confidence_shift: float = 0.0
    flips: tuple[tuple[str, int], ...] = ()

    @property
    def error_rate(self) -> float:
        """Share of the requests that the revision failed."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def agreement_rate(self) -> float | None:
        """How far it agrees with the stable revision on the copies; None without any."""
        return self.agreement / self.compared if self.compared else None


@dataclass(frozen=True)
class Judgement:
    """What the figures say.

    Attributes:
        outcome: Passed, Failed or Inconclusive.
        message: the figures, or which limit was broken by how much.
        dry: what measures that are only reported would have said.
    """

    outcome: Literal["Passed", "Failed", "Inconclusive"]
    message: str
    dry: str = ""


def figures_of(reports: Iterable[ServerReport], revision: str, window: str) -> Figures:
    """Add up what the replicas have counted for a revision in a window."""
    counts = [r.counts[revision] for r in reports if r.window == window and revision in r.counts]
    flips: Counter[str] = Counter()
    for each in counts:
        flips.update(each.flips)
    compared = sum(each.compared for each in counts)
    return Figures(
        requests=sum(each.requests for each in counts),
        errors=sum(each.errors for each in counts),
        p99_ms=_quantile_ms(counts),
        compared=compared,
        agreement=sum(each.agreement for each in counts),
        confidence_shift=sum(each.confidence_shift for each in counts) / compared if compared else 0.0,
        flips=tuple(flips.most_common(3)),
    )


def judge(analysis: Analysis, canary: Figures, stable: Figures, elapsed_s: float) -> Judgement:
    """Return whether the new revision keeps to all measures that count."""
    if canary.requests < analysis.min_requests:
        text = f"{canary.requests} of {analysis.min_requests} requests in {elapsed_s:.0f} s"
        return Judgement("Inconclusive", text)
    broken: list[str] = []
    dry: list[str] = []
    waiting: list[str] = []
    for name, measure in _MEASURES.items():
        limit = getattr(analysis, name)
        if limit is None:
            continue
        found, camel = measure(float(limit), canary, stable), _camel(name)
        if found is None and name == "min_agreement" and not canary.compared and camel not in analysis.dry_run:
            waiting.append("no copied request was compared yet")
        elif found and camel in analysis.dry_run:
            dry.append(f"{camel}: {found}")
        elif found:
            broken.append(found)
    if broken:
        return Judgement("Failed", "; ".join(broken), "; ".join(dry))
    if waiting:
        return Judgement("Inconclusive", waiting[0], "; ".join(dry))
    return Judgement("Passed", summary(canary), "; ".join(dry))


def summary(figures: Figures) -> str:
    """Return the figures of a revision in one line."""
    parts = [f"{figures.requests} requests", f"{_percent(figures.error_rate)} failed"]
    if figures.p99_ms is not None:
        parts.append(f"p99 {figures.p99_ms:.0f} ms")
    if figures.agreement_rate is not None:
        parts.append(f"{_percent(figures.agreement_rate)} agreement on {figures.compared} copies")
    return ", ".join(parts)


def _error_rate(limit: float, canary: Figures, stable: Figures) -> str | None:
    if canary.error_rate <= limit:
        return None
    return f"{_percent(canary.error_rate)} of {canary.requests} requests failed, {_percent(limit)} are allowed"


def _error_rate_increase(limit: float, canary: Figures, stable: Figures) -> str | None:
    if canary.error_rate - stable.error_rate <= limit:
        return None
    return (
        f"{_percent(canary.error_rate)} of {canary.requests} requests failed, {_percent(stable.error_rate)} of the "
        f"revision in service, and {_percent(limit)} more are allowed"
    )


def _p99(limit: float, canary: Figures, stable: Figures) -> str | None:
    if canary.p99_ms is None or canary.p99_ms <= limit:
        return None
    return f"its p99 is {canary.p99_ms:.0f} ms, {limit:.0f} ms are allowed"


def _p99_ratio(limit: float, canary: Figures, stable: Figures) -> str | None:
    if canary.p99_ms is None or not stable.p99_ms or canary.p99_ms <= limit * stable.p99_ms:
        return None
    return (
        f"its p99 is {canary.p99_ms:.0f} ms, that of the revision in service {stable.p99_ms:.0f} ms, and "
        f"{decimal_text(limit)} times as much is allowed"
    )


def _agreement(limit: float, canary: Figures, stable: Figures) -> str | None:
    if canary.agreement_rate is None or canary.agreement_rate >= limit:
        return None
    flips = ", ".join(f"{flip} {count} times" for flip, count in canary.flips)
    return (
        f"it agrees with the revision in service on {_percent(canary.agreement_rate)} of {canary.compared} copied "
        f"requests, {_percent(limit)} are asked for" + (f" ({flips})" if flips else "")
    )


_MEASURES: dict[str, Callable[[float, Figures, Figures], str | None]] = {
    "max_error_rate": _error_rate,
    "max_error_rate_increase": _error_rate_increase,
    "max_p99_milliseconds": _p99,
    "max_p99_ratio": _p99_ratio,
    "min_agreement": _agreement,
}


def _quantile_ms(counts: Sequence[RevisionCounts]) -> float | None:
    """Return the upper edge of the bucket that holds the quantile."""
    total: Counter[int] = Counter()
    for each in counts:
        total.update(each.latency)
    place = math.ceil(QUANTILE * total.total())
    for key in sorted(total):
        place -= total[key]
        if place <= 0:
            return float(2 ** (key / LATENCY_BUCKETS_PER_OCTAVE))
    return None


def _percent(share: float) -> str:
    return f"{decimal_text(float(Decimal(str(share)) * 100), 3)} %"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
