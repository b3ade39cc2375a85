"""Regression: a number for each text or pair of texts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Label, Task
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.evaluation import Evaluation
from luthier_trainer.tasks.interface import LossName, ParsedLabel, Predictions
from luthier_trainer.tasks.metrics.bootstrap import bootstrap, resamples_for
from luthier_trainer.tasks.metrics.confusion_counts import Array
from luthier_trainer.tasks.metrics.mistakes import top_mistakes

SCATTER_POINTS = 1000
_PASSES = 4  # over the numbers, for each resample


class Regression:
    """One output, which is the number."""

    name = Task.REGRESSION
    auto_class = "AutoModelForSequenceClassification"
    problem_type: str | None = "regression"
    loss: LossName = "mean-squared-error"
    per_token = False
    target_type = pa.float64()
    metrics: tuple[str, ...] = ("mse", "rmse", "mae", "r2", "pearson", "spearman")
    errors: tuple[str, ...] = ("mse", "rmse", "mae")
    best_metric = "eval_mse"
    baseline_name = "always the mean"
    pipeline_tag = "text-classification"

    def parse(self, cell: object, file: DataFile) -> ParsedLabel | None:
        """Return the number."""
        # NaN is missing, be it a number or, in CSV, the word.
        if cell is None or (isinstance(cell, str) and cell.strip().lower() in ("", "nan")) or cell != cell:
            return None
        if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal | str):
            raise ValueError(f"{cell!r}, which is not a number")
        try:
            number = float(cell)
        except (ValueError, OverflowError):
            raise ValueError(f"{cell!r}, which is not a number") from None
        if not math.isfinite(number):
            raise ValueError(f"{cell!r}, which is not a finite number")
        return number

    def label_names(self, label: ParsedLabel) -> Iterable[Label]:
        """Return nothing: a number is no label."""
        return ()

    def renamed(self, label: ParsedLabel, names: Mapping[str, str]) -> ParsedLabel:
        """Return the number as it is."""
        return label

    def stratum(self, label: ParsedLabel) -> str:
        """Return the same for all: numbers are split at random."""
        return ""

    def encode(self, label: ParsedLabel, index: Mapping[Label, int], word_ids: list[int | None] | None) -> float:
        """Return the number."""
        assert isinstance(label, float)
        return label

    def dense_targets(self, part: Part, outputs: int) -> npt.NDArray[Any]:
        """Return the numbers [texts]."""
        targets: npt.NDArray[Any] = part.targets().to_numpy()
        return targets

    def measure(self, predictions: Predictions, labels: Sequence[str]) -> dict[str, float]:
        """Return errors and correlations; a correlation with what does not vary is 0."""
        return _Scores(predictions).metrics(np.ones(len(predictions.targets)))

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always saying the mean of the training numbers."""
        targets = self.dense_targets(evaluated, 1)
        logits = np.full((len(targets), 1), self.dense_targets(train, 1).mean())
        return self.measure(Predictions(logits, targets, np.ones(len(targets), dtype=np.int64), float("nan")), labels)

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return true and predicted numbers and the largest errors beside the metrics."""
        scores = _Scores(predictions)
        size = len(scores.true)
        resamples = resamples_for(_PASSES * size)
        shown = np.unique(np.linspace(0, size - 1, min(size, SCATTER_POINTS)).round().astype(int))
        off = np.abs(scores.said - scores.true)
        return Evaluation(
            metrics=scores.metrics(np.ones(size)),
            intervals=bootstrap(scores.metrics, size, resamples=resamples, seed=seed),
            resamples=resamples,
            scatter=[(float(scores.true[i]), float(scores.said[i])) for i in shown],
            mistakes=top_mistakes(
                part, off, off > 0, lambda text: (f"{scores.true[text]:.4g}", f"{scores.said[text]:.4g}")
            ),
        )


class _Scores:
    """The metrics as a function of how often each text counts."""

    def __init__(self, predictions: Predictions) -> None:
        self.said = predictions.logits.reshape(-1).astype(np.float64)
        self.true = predictions.targets.astype(np.float64)
        self._off = self.said - self.true
        self._said_ranks, self._true_ranks = _Ranks(self.said), _Ranks(self.true)

    def metrics(self, weights: Array) -> dict[str, float]:
        total = weights.sum()
        mse = float(weights @ self._off**2 / total)
        true = _centred(self.true, weights)
        variance = float(weights @ true**2 / total)
        return {
            "mse": mse,
            "rmse": math.sqrt(mse),
            "mae": float(weights @ np.abs(self._off) / total),
            "r2": 1 - mse / variance if variance > 0 else float(mse == 0),
            "pearson": _correlation(self.said, self.true, weights),
            "spearman": _correlation(self._said_ranks.of(weights), self._true_ranks.of(weights), weights),
        }


class _Ranks:
    """Ranks of numbers, equal ones sharing the mean of theirs."""

    def __init__(self, numbers: Array) -> None:
        different, self._place = np.unique(numbers, return_inverse=True)
        self._size = len(different)

    def of(self, weights: Array) -> Array:
        """Return the rank of each number among all, each as often as its weight says."""
        drawn = np.bincount(self._place, weights, self._size)
        ranks: Array = (np.cumsum(drawn) - (drawn - 1) / 2)[self._place]
        return ranks


def _correlation(a: Array, b: Array, weights: Array) -> float:
    """Return Pearson's correlation, 0 where one side does not vary."""
    a, b = _centred(a, weights), _centred(b, weights)
    spread = math.sqrt(float(weights @ a**2) * float(weights @ b**2))
    # Rounding may pass 1.
    return min(1.0, max(-1.0, float(weights @ (a * b)) / spread)) if spread > 0 else 0.0


def _centred(numbers: Array, weights: Array) -> Array:
    """Return numbers less their mean."""
    # First less one that counts: where all that count are the same the rest is 0, whatever rounding makes of a mean.
    moved = numbers - numbers[weights.argmax()]
    centred: Array = moved - weights @ moved / weights.sum()
    return centred
