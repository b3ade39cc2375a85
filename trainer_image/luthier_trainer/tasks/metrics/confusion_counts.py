"""Scores that follow from how often each label is right, predicted and true: precision, recall, F1 and their averages.

The definitions are scikit-learn's (`precision_recall_fscore_support` with zero_division=0, averaged over the labels
that occur in truth or prediction; `matthews_corrcoef`). They are computed here because the bootstrap asks for them a
thousand times with other weights of the texts, and all that changes then is a sum.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ConfusionCounts:
    """ConfusionCounts [labels]: answers that are right, answers given, answers that would have been right."""

    right: Array
    predicted: Array
    actual: Array

    def without(self, positions: list[int]) -> "ConfusionCounts":
        """Return the counts of the other labels."""
        return ConfusionCounts(*(np.delete(each, positions) for each in (self.right, self.predicted, self.actual)))

    def together(self) -> "ConfusionCounts":
        """Return the counts of all labels as if they were one, for micro averages."""
        return ConfusionCounts(*(each.sum(keepdims=True) for each in (self.right, self.predicted, self.actual)))

    def precision(self) -> Array:
        """Return precision of each label; 0 where it was never predicted."""
        return _ratio(self.right, self.predicted)

    def recall(self) -> Array:
        """Return recall of each label; 0 where it never was true."""
        return _ratio(self.right, self.actual)

    def f1(self) -> Array:
        """Return F1 of each label."""
        return _ratio(2 * self.right, self.predicted + self.actual)

    def macro(self, scores: Array) -> float:
        """Return the mean over the labels that occur; 0 where none does."""
        occurs = (self.predicted + self.actual) > 0
        return float(scores[occurs].mean()) if occurs.any() else 0.0

    def weighted(self, scores: Array) -> float:
        """Return the mean weighted by how often each label is true; 0 where none is."""
        total = self.actual.sum()
        return float(scores @ self.actual / total) if total else 0.0

    def accuracy(self) -> float:
        """Return the share of right answers where each row has one label."""
        total = self.actual.sum()
        return float(self.right.sum() / total) if total else 0.0

    def matthews(self) -> float:
        """Return Matthews' correlation coefficient (Gorodkin, 2004, for several labels); 0 where one side never varies.

        For rows that have one label each.
        """
        rows = self.actual.sum()
        spread = (rows**2 - self.predicted @ self.predicted) * (rows**2 - self.actual @ self.actual)
        covariance = self.right.sum() * rows - self.predicted @ self.actual
        return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


@dataclass(frozen=True)
class Tally:
    """Events, each of one text and one label.

    Attributes:
        texts: [events] position of the text.
        labels: [events] position of the label.
        size: number of labels.
    """

    texts: Integers
    labels: Integers
    size: int

    @classmethod
    def of_table(cls, table: npt.NDArray[np.bool_]) -> Self:
        """Take the true cells [texts, labels]."""
        texts, labels = np.nonzero(table)
        return cls(texts, labels, table.shape[1])

    def sums(self, weights: Array) -> Array:
        """Return for each label the number of its events, each as often as its text counts."""
        sums: Array = np.bincount(self.labels, weights[self.texts], self.size).astype(np.float64)
        return sums


@dataclass(frozen=True)
class AnswerEvents:
    """Answers as events, so that they can be counted again with other weights of the texts."""

    right: Tally
    predicted: Tally
    actual: Tally

    @classmethod
    def of_labels(cls, predicted: Integers, actual: Integers, texts: Integers, labels: int) -> Self:
        """Judge label positions [rows], each row of the text in `texts`."""
        hit = predicted == actual
        return cls(
            Tally(texts[hit], actual[hit], labels), Tally(texts, predicted, labels), Tally(texts, actual, labels)
        )

    @classmethod
    def of_label_sets(cls, predicted: npt.NDArray[np.bool_], actual: npt.NDArray[np.bool_]) -> Self:
        """Judge sets of labels [texts, labels]."""
        return cls(Tally.of_table(predicted & actual), Tally.of_table(predicted), Tally.of_table(actual))

    def counts(self, weights: Array) -> ConfusionCounts:
        """Count, each text as often as its weight says."""
        return ConfusionCounts(self.right.sums(weights), self.predicted.sums(weights), self.actual.sums(weights))


def _ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 where whole is."""
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)
