"""Probabilities, and whether they mean what they say: calibration in 15 bins of equal width (Guo et al., 2017).

scipy is imported where it computes, because *prepare* imports the tasks and needs none.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from luthier_trainer.tasks.evaluation import Calibration, CalibrationBin
from luthier_trainer.tasks.metrics.confusion_counts import Array, Integers

BINS = 15


def softmax(logits: npt.NDArray[Any]) -> Array:
    """Return probabilities of labels that exclude each other [rows, labels]."""
    from scipy import special

    probabilities: Array = special.softmax(logits.astype(np.float64), axis=-1)
    return probabilities


def sigmoid(logits: npt.NDArray[Any]) -> Array:
    """Return probabilities of labels that do not [rows, labels]."""
    from scipy import special

    probabilities: Array = special.expit(logits.astype(np.float64))
    return probabilities


class Reliability:
    """Claims of a probability, and whether each came true."""

    def __init__(self, confidence: Array, true: npt.NDArray[np.bool_], texts: Integers, size: int) -> None:
        """Sort the claims into bins.

        Args:
            confidence: [claims] probability.
            true: [claims] whether it came true.
            texts: [claims] position of the text it is about.
            size: number of texts.
        """
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        cells = texts * BINS + bins

        def table(values: Array | None) -> Array:
            return np.bincount(cells, values, size * BINS).astype(np.float64).reshape(size, BINS)

        self._count = table(None)
        self._confidence = table(confidence)
        self._true = table(true.astype(np.float64))
        self._gap = self._true - self._confidence
        self._claims = self._count.sum(axis=1)

    def error(self, weights: Array) -> float:
        """Return the expected calibration error, each text as often as its weight says; 0 without any claim."""
        claims = float(weights @ self._claims)
        return float(np.abs(weights @ self._gap).sum()) / claims if claims else 0.0

    def calibration(self) -> Calibration:
        """Return the bins that are not empty."""
        sums = zip(self._count.sum(axis=0), self._confidence.sum(axis=0), self._true.sum(axis=0), strict=True)
        return Calibration(
            ece=self.error(np.ones(len(self._count))),
            bins=[CalibrationBin(int(n), float(said / n), float(true / n)) for n, said, true in sums if n],
        )
