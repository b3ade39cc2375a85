"""Scores that follow from how often each label is right, predicted and true: precision, recall, F1 and their averages.

The definitions are scikit-learn's (`precision_recall_fscore_support` with zero_division=0, averaged over the labels
that occur in truth or prediction). They are computed here because the bootstrap needs them of a thousand resamples at
once: every array may have leading dimensions, which scikit-learn has no way to take.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Counts [..., labels]: answers that are right, answers given, answers that would have been right."""

    right: Array
    predicted: Array
    actual: Array

    @classmethod
    def of_labels(cls, predicted: npt.NDArray[Any], actual: npt.NDArray[Any], labels: int) -> "Counts":
        """Count label positions [rows]."""
        tables = (actual[predicted == actual], predicted, actual)
        return cls(*(np.bincount(each, minlength=labels).astype(np.float64) for each in tables))

    @classmethod
    def of_sets(cls, predicted: npt.NDArray[Any], actual: npt.NDArray[Any]) -> "Counts":
        """Count 0 and 1 [rows, labels]."""
        tables = ((predicted != 0) & (actual != 0), predicted != 0, actual != 0)
        return cls(*(each.sum(axis=0).astype(np.float64) for each in tables))

    def without(self, labels: list[int]) -> "Counts":
        """Return the counts of the other labels."""
        return Counts(*(np.delete(each, labels, axis=-1) for each in (self.right, self.predicted, self.actual)))

    def precision(self) -> Array:
        """Return precision of each label; 0 where it was never predicted."""
        return _ratio(self.right, self.predicted)

    def recall(self) -> Array:
        """Return recall of each label; 0 where it never was true."""
        return _ratio(self.right, self.actual)

    def f1(self) -> Array:
        """Return F1 of each label."""
        return _ratio(2 * self.right, self.predicted + self.actual)

    def macro(self, scores: Array) -> Array:
        """Return the mean over the labels that occur."""
        occurs = (self.predicted + self.actual) > 0
        return _ratio((scores * occurs).sum(axis=-1), occurs.sum(axis=-1).astype(np.float64))

    def weighted(self, scores: Array) -> Array:
        """Return the mean weighted by how often each label is true."""
        return _ratio((scores * self.actual).sum(axis=-1), self.actual.sum(axis=-1))

    def micro(self) -> "Counts":
        """Return the counts of all labels together, [..., 1]."""
        return Counts(*(each.sum(axis=-1, keepdims=True) for each in (self.right, self.predicted, self.actual)))

    def accuracy(self) -> Array:
        """Return the share of right answers where each row has one label."""
        return _ratio(self.right.sum(axis=-1), self.actual.sum(axis=-1))


def _ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 where whole is."""
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole > 0)
