"""How the texts and answers of today differ from those of the evaluation split: what is counted, and one figure for it.

    train --ReferenceDocument in the artifact, as reference.json--> server
    server --DriftReport in its ServerReport--> operator

Trainer and server count with the same `Tally`, so that a bin means the same on both sides. The operator adds up the
profiles of all replicas and then compares: a mean over replicas of the figure would be another figure.

The figure is the population stability index (Siddiqi, Credit Risk Scorecards, 2006, where 0.1 is a small shift and 0.25
a large one): the sum over the bins of (a - e) * ln(a / e), where e is a bin's share in the reference and a its share
now. It is the symmetric divergence of Kullback and Leibler (1951).
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from luthier_api.base import Count, Document
from luthier_api.training import Label

CONFIDENCE_BINS = 10
# 1 token, 2, up to 4, up to 8, ..., up to 8192, which is the longest that any model here reads.
TOKEN_BINS = 14
# Upper edges of the bins of a text's share of unknown tokens: none, up to 1 %, ..., up to half, more than half.
UNKNOWN_EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# With more labels only the most frequent ones have a bin of their own; the rest share one.
MOST_LABELS = 20
# Upper 0.1 % point of the normal distribution.
_Z = 3.0902

Feature = Literal["labels", "confidence", "tokens", "unknown"]
FEATURE_TITLES: dict[Feature, str] = {
    "labels": "label mix",
    "confidence": "confidence",
    "tokens": "token lengths",
    "unknown": "unknown tokens",
}


class Profile(Document):
    """What texts and their answers look like: how many are in each bin."""

    texts: Count = Field(default=0, description="Texts that were counted.")
    labels: Annotated[list[Count], Field(max_length=MOST_LABELS + 1)] = Field(
        default=[],
        description="How often each of the reference's `label_names` was predicted, and last how often any other "
        "label, or none. Empty where the task has no labels for a whole text.",
    )
    confidence: Annotated[list[Count], Field(max_length=CONFIDENCE_BINS)] = Field(
        default=[], description="Texts by the probability of their likeliest label, in ten bins of equal width."
    )
    tokens: Annotated[list[Count], Field(max_length=TOKEN_BINS)] = Field(
        default=[], description="Texts by their number of tokens, as the model reads them; each bin is twice as wide."
    )
    unknown: Annotated[list[Count], Field(max_length=len(UNKNOWN_EDGES) + 1)] = Field(
        default=[], description="Texts by the share of their tokens that the tokenizer does not know."
    )

    def plus(self, other: "Profile") -> "Profile":
        """Return both together; of the same reference."""
        both = {name: _added(getattr(self, name), getattr(other, name)) for name in FEATURE_TITLES}
        return Profile(texts=self.texts + other.texts, **both)


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    if not one or not other:
        return list(one or other)
    if len(one) != len(other):
        return list(one)  # of another release, which has other bins
    return [a + b for a, b in zip(one, other, strict=True)]


class ReferenceDocument(Document):
    """reference.json of an artifact: the evaluation split and what the final model answers to it."""

    label_names: Annotated[list[Label], Field(max_length=MOST_LABELS)] = Field(
        default=[], description="Labels that have a bin of their own."
    )
    unknown_token_id: Count | None = Field(
        default=None, description="Token that stands for what the tokenizer does not know; none for some tokenizers."
    )
    profile: Profile = Field(description="What the evaluation split looks like.")


class DriftReport(Document):
    """What a server replica has seen lately of one revision."""

    reference: ReferenceDocument | None = Field(
        default=None, description="Of the revision's artifact; none in one of an earlier release."
    )
    recent: Profile = Field(default=Profile(), description="Of the last `windowSeconds`.")


class Tally:
    """Counts texts into bins."""

    def __init__(self) -> None:
        self.texts = 0
        self.labels: Counter[str] = Counter()
        self._no_label = 0
        self._confidence = [0] * CONFIDENCE_BINS
        self._tokens = [0] * TOKEN_BINS
        self._unknown = [0] * (len(UNKNOWN_EDGES) + 1)

    def add(self, labels: Sequence[str] | None, confidence: float | None, tokens: int, unknown: int) -> None:
        """Count one text.

        Args:
            labels: what was predicted, possibly nothing; None where the task has no labels for a whole text.
            confidence: probability of the likeliest label, or None.
            tokens: of the text, special tokens included.
            unknown: how many of them the tokenizer does not know.
        """
        self.texts += 1
        if labels:
            for label in labels:
                self.labels[label] += 1
        elif labels is not None:
            self._no_label += 1
        if confidence is not None:
            self._confidence[min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += 1
        self._tokens[min(max(tokens - 1, 0).bit_length(), TOKEN_BINS - 1)] += 1
        self._unknown[bisect_left(UNKNOWN_EDGES, unknown / max(tokens, 1))] += 1

    def merge(self, other: "Tally") -> None:
        """Add what another one has counted."""
        self.texts += other.texts
        self.labels.update(other.labels)
        self._no_label += other._no_label
        for mine, its in (
            (self._confidence, other._confidence),
            (self._tokens, other._tokens),
            (self._unknown, other._unknown),
        ):
            mine[:] = [a + b for a, b in zip(mine, its, strict=True)]

    def profile(self, label_names: Sequence[str]) -> Profile:
        """Return the counts; labels without a bin of their own share the last one with texts that have none."""
        named = [self.labels[name] for name in label_names]
        rest = self.labels.total() - sum(named) + self._no_label
        return Profile(
            texts=self.texts,
            labels=[*named, rest] if label_names else [],
            confidence=self._confidence if any(self._confidence) else [],
            tokens=self._tokens,
            unknown=self._unknown,
        )


def compare_profiles(reference: ReferenceDocument, recent: Profile) -> dict[Feature, tuple[float, float]]:
    """Return for each feature that both know the index, and how large chance alone makes it at most.

    The unknown tokens of a tokenizer that has none say nothing, and are left out.
    """
    found: dict[Feature, tuple[float, float]] = {}
    for feature in FEATURE_TITLES:
        expected, actual = getattr(reference.profile, feature), getattr(recent, feature)
        known = feature != "unknown" or reference.unknown_token_id is not None
        if known and len(expected) == len(actual) and sum(expected) and sum(actual):
            found[feature] = psi(expected, actual), by_chance(expected, actual)
    return found


def psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the population stability index of two rows of counts; see the module for the formula.

    An empty bin would make it infinite, so half a text of the smaller sample is added to each bin, as a share and on
    both sides alike. So a bin that is empty on both sides adds nothing, however unequal the samples are, and one that a
    small sample could not show adds little. (Half a count is the estimator of Krichevsky and Trofimov, 1981.)
    """
    total, now = sum(expected), sum(actual)
    half = 0.5 / min(total, now)
    whole = 1 + half * len(expected)
    pairs = [((e / total + half) / whole, (a / now + half) / whole) for e, a in zip(expected, actual, strict=True)]
    return sum((a - e) * math.log(a / e) for e, a in pairs)


def by_chance(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return what the index exceeds in one of a thousand comparisons of two samples of the same texts.

    Without drift it is distributed as (1/n + 1/m) times chi squared with one degree of freedom less than there are bins
    (Yurdakul, Statistical Properties of Population Stability Index, 2018). The quantile of chi squared is that of
    Wilson and Hilferty (1931).
    """
    bins = sum(1 for e, a in zip(expected, actual, strict=True) if e or a)
    freedom = max(bins - 1, 1)
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + _Z * math.sqrt(spread)) ** 3
    return quantile * (1 / sum(expected) + 1 / sum(actual))
