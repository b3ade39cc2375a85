"""Multi-label classification: any number of labels for each text, none included.

A cell holds a list (JSON lines, Parquet) or the labels separated by `labelSeparator`, a comma unless said otherwise. A
text without any label is an empty list, or a cell with the separator alone; an empty cell is a missing label.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Label, Task
from luthier_trainer.prepared import Part
from luthier_trainer.tasks import LossName, Parsed, Predictions
from luthier_trainer.tasks.cells import label_list
from luthier_trainer.tasks.counts import Counts
from luthier_trainer.tasks.findings import Evaluation, LabelReport

DEFAULT_SEPARATOR = ","


class MultiLabel:
    """Each label is a yes or no of its own."""

    name = Task.MULTI_LABEL
    auto_class = "AutoModelForSequenceClassification"
    problem_type: str | None = "multi_label_classification"
    loss: LossName = "binary-cross-entropy"
    per_token = False
    target_type = pa.list_(pa.int32())
    metrics: tuple[str, ...] = (
        *("accuracy", "f1_macro", "f1_micro", "f1_weighted"),
        *("precision_macro", "recall_macro", "hamming_loss"),
    )
    errors: tuple[str, ...] = ("hamming_loss",)
    best_metric = "eval_f1_macro"
    takes_pairs = True

    def parse(self, cell: object, file: DataFile) -> Parsed | None:
        """Return the labels of a cell, each once and sorted, so that equal sets are equal."""
        labels = label_list(cell, file.label_separator or DEFAULT_SEPARATOR)
        return None if labels is None else tuple(sorted(set(labels)))

    def words(self, label: Parsed) -> Iterable[Label]:
        """Return the labels."""
        return _labels(label)

    def renamed(self, label: Parsed, names: Mapping[str, str]) -> Parsed:
        """Return the set with other names; two labels may become one."""
        return tuple(sorted({names.get(each, each) for each in _labels(label)}))

    def stratum(self, label: Parsed) -> str:
        """Return the set as a word."""
        return "\n".join(_labels(label))

    def encode(self, label: Parsed, index: Mapping[Label, int], words: list[int | None] | None) -> list[int]:
        """Return the labels' positions."""
        return sorted(index[each] for each in _labels(label))

    def dense_targets(self, part: Part, outputs: int) -> npt.NDArray[Any]:
        """Return 0 and 1 [texts, labels]."""
        column = part.targets().combine_chunks()
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        targets: npt.NDArray[Any] = np.zeros((len(lengths), outputs), dtype=np.int8)
        targets[np.repeat(np.arange(len(lengths)), lengths), column.flatten().to_numpy()] = 1
        return targets

    def measure(self, predictions: Predictions, labels: Sequence[str]) -> dict[str, float]:
        """Return the headline metrics; accuracy is the share of texts whose whole set is right."""
        given, targets = _given(predictions), predictions.targets != 0
        counts = Counts.of_sets(given, targets)
        return {
            "accuracy": float((given == targets).all(axis=-1).mean()),
            "f1_macro": float(counts.macro(counts.f1())),
            "f1_micro": float(counts.micro().f1()[..., 0]),
            "f1_weighted": float(counts.weighted(counts.f1())),
            "precision_macro": float(counts.macro(counts.precision())),
            "recall_macro": float(counts.macro(counts.recall())),
            "hamming_loss": float((given != targets).mean()),
        }

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always giving the labels that at least half of the training texts have."""
        share = self.dense_targets(train, len(labels)).mean(axis=0)
        targets = self.dense_targets(evaluated, len(labels))
        logits = np.broadcast_to(share - 0.5, targets.shape)
        ones = np.ones(len(targets), dtype=np.int64)
        return self.measure(Predictions(logits, targets, ones, float("nan")), labels)

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return scores of each label beside the metrics."""
        counts = Counts.of_sets(_given(predictions), predictions.targets)
        rows = zip(labels, counts.precision(), counts.recall(), counts.f1(), counts.actual, strict=True)
        return Evaluation(
            metrics=self.measure(predictions, labels),
            intervals={},
            labels=[LabelReport(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in rows],
        )


def _labels(label: Parsed) -> tuple[str, ...]:
    assert isinstance(label, tuple)
    return label


def _given(predictions: Predictions) -> npt.NDArray[np.bool_]:
    """Return which labels are given [texts, labels]: those of a probability of at least one half."""
    given: npt.NDArray[np.bool_] = predictions.logits >= 0
    return given
