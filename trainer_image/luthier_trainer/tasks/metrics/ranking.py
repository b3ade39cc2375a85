"""How well a score ranks rows with a label above rows without it: ROC and precision-recall, their areas and curves.

The definitions are scikit-learn's `roc_auc_score` and `average_precision_score`, which also draws the curves. The areas
are computed here because the bootstrap asks for them a thousand times with other weights, and the order, which costs,
stays the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier_trainer.tasks.evaluation import Curve
from luthier_trainer.tasks.metrics.confusion_counts import Array, Integers

CURVE_POINTS = 200
CURVES = 50  # more lines than a reader can distinguish
# Ranking a label once takes as long as looking at so many numbers, however few rows there are.
_CALL = 4000


class Ranking:
    """Rows in the order of one label's score."""

    def __init__(self, scores: Array, has: npt.NDArray[np.bool_], texts: Integers) -> None:
        """Sort [rows] by falling score; rows of one score are one step."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        self._has, self._texts = has[order], texts[order]

    def areas(self, weights: Array) -> tuple[float | None, float | None]:
        """Return the areas under ROC and precision-recall; None where they are not defined."""
        drawn = weights[self._texts]
        seen = np.cumsum(drawn)[self._ends]
        found = np.cumsum(drawn * self._has)[self._ends]
        positives, negatives = float(found[-1]), float(seen[-1] - found[-1])
        if not positives:
            return None, None
        gained = np.diff(found, prepend=0.0)
        precision = np.divide(found, seen, out=np.zeros(len(seen)), where=seen > 0)
        average_precision = float(gained @ precision) / positives
        if not negatives:
            return None, average_precision
        false = seen - found
        below = np.diff(false, prepend=0.0) @ (found - gained / 2)
        return float(below) / (positives * negatives), average_precision


class Rankings:
    """One ranking for each label."""

    def __init__(self, scores: Array, has: npt.NDArray[np.bool_], texts: Integers) -> None:
        """Rank scores [rows, labels]; `has` tells which labels each row has."""
        self._rankings = [Ranking(scores[:, label], has[:, label], texts) for label in range(scores.shape[1])]
        self.numbers = scores.size + _CALL * scores.shape[1]

    def areas(self, weights: Array) -> dict[str, float]:
        """Return the mean areas over the labels for which they are defined.

        Where none is, nothing was ranked: 0.5, as by chance, and a precision of 0.
        """
        both = [ranking.areas(weights) for ranking in self._rankings]
        roc = [area for area, _ in both if area is not None]
        precision = [area for _, area in both if area is not None]
        return {
            "roc_auc": float(np.mean(roc)) if roc else 0.5,
            "average_precision": float(np.mean(precision)) if precision else 0.0,
        }


def curves(
    scores: Array, has: npt.NDArray[np.bool_], labels: Sequence[str], texts: Integers
) -> tuple[list[Curve], list[Curve]]:
    """Return the defined ROC and precision-recall curves of the labels with the smallest areas."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    roc: list[Curve] = []
    precision_recall: list[Curve] = []
    if not len(texts):
        return roc, precision_recall
    every = np.ones(int(texts.max()) + 1)
    areas = [Ranking(scores[:, label], has[:, label], texts).areas(every) for label in range(len(labels))]
    precisions = {label: precision for label, (_, precision) in enumerate(areas) if precision is not None}
    for label in sorted(sorted(precisions, key=precisions.__getitem__)[:CURVES]):
        true, score, roc_area = has[:, label], scores[:, label], areas[label][0]
        if roc_area is not None:
            x, y, _ = roc_curve(true, score)
            roc.append(Curve(labels[label], _thinned(x, y), roc_area))
        y, x, _ = precision_recall_curve(true, score, drop_intermediate=True)
        precision_recall.append(Curve(labels[label], _thinned(x[::-1], y[::-1]), precisions[label]))
    return roc, precision_recall


def _thinned(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> list[tuple[float, float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return [(round(float(x[i]), 4), round(float(y[i]), 4)) for i in kept]
