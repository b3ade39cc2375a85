"""Regression: a number for each text or pair of texts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Label, Task
from luthier_trainer.prepared import Part
from luthier_trainer.tasks import LossName, Parsed, Predictions
from luthier_trainer.tasks.findings import Evaluation


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
    takes_pairs = True

    def parse(self, cell: object, file: DataFile) -> Parsed | None:
        """Return the number."""
        if cell is None or (isinstance(cell, str) and not cell.strip()) or cell != cell:
            return None
        if isinstance(cell, bool) or not isinstance(cell, int | float | str):
            raise ValueError(f"{cell!r}, which is no number")
        try:
            number = float(cell)
        except (ValueError, OverflowError):
            raise ValueError(f"{cell!r}, which is no number") from None
        if not math.isfinite(number):
            raise ValueError(f"{cell!r}, which is no finite number")
        return number

    def words(self, label: Parsed) -> Iterable[Label]:
        """Return nothing: a number is no label."""
        return ()

    def renamed(self, label: Parsed, names: Mapping[str, str]) -> Parsed:
        """Return the number as it is."""
        return label

    def stratum(self, label: Parsed) -> str:
        """Return the same for all: numbers are split at random."""
        return ""

    def encode(self, label: Parsed, index: Mapping[Label, int], words: list[int | None] | None) -> float:
        """Return the number."""
        assert isinstance(label, float)
        return label

    def dense_targets(self, part: Part, outputs: int) -> npt.NDArray[Any]:
        """Return the numbers [texts]."""
        targets: npt.NDArray[Any] = part.targets().to_numpy()
        return targets

    def measure(self, predictions: Predictions, labels: Sequence[str]) -> dict[str, float]:
        """Return errors and correlations; a correlation with what does not vary is 0."""
        from scipy.stats import rankdata  # type: ignore[import-untyped]

        said, true = predictions.logits.reshape(-1).astype(np.float64), predictions.targets.astype(np.float64)
        off = said - true
        mse, variance = float((off**2).mean()), float(true.var())
        return {
            "mse": mse,
            "rmse": math.sqrt(mse),
            "mae": float(np.abs(off).mean()),
            "r2": 1 - mse / variance if variance > 0 else float(mse == 0),
            "pearson": _correlation(said, true),
            "spearman": _correlation(rankdata(said), rankdata(true)),
        }

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always saying the mean of the training numbers."""
        targets = self.dense_targets(evaluated, 1)
        logits = np.full((len(targets), 1), self.dense_targets(train, 1).mean())
        return self.measure(Predictions(logits, targets, np.ones(len(targets), dtype=np.int64), float("nan")), labels)

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return a scatter beside the metrics."""
        pairs = zip(predictions.targets, predictions.logits.reshape(-1), strict=True)
        return Evaluation(
            metrics=self.measure(predictions, labels),
            intervals={},
            scatter=[(float(true), float(said)) for true, said in pairs][:1000],
        )


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / spread if spread > 0 else 0.0
