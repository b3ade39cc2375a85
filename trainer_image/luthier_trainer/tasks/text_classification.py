"""Text classification: one label for each text or pair of texts, of two or more.

Metrics are scikit-learn's; a label that was never predicted has precision 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Label, Task
from luthier_trainer.prepared import Part
from luthier_trainer.tasks import LossName, Parsed, Predictions
from luthier_trainer.tasks.cells import label_text
from luthier_trainer.tasks.findings import Evaluation, LabelReport


class TextClassification:
    """One of several labels."""

    name = Task.TEXT_CLASSIFICATION
    auto_class = "AutoModelForSequenceClassification"
    problem_type: str | None = "single_label_classification"
    loss: LossName = "cross-entropy"
    per_token = False
    target_type = pa.int32()
    metrics: tuple[str, ...] = ("accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_macro")
    errors: tuple[str, ...] = ()
    best_metric = "eval_f1_macro"
    takes_pairs = True

    def parse(self, cell: object, file: DataFile) -> Parsed | None:
        """Return the label."""
        return label_text(cell)

    def words(self, label: Parsed) -> Iterable[Label]:
        """Return the label."""
        return (str(label),)

    def renamed(self, label: Parsed, names: Mapping[str, str]) -> Parsed:
        """Return the label by its other name."""
        return names.get(str(label), label)

    def stratum(self, label: Parsed) -> str:
        """Return the label."""
        return str(label)

    def encode(self, label: Parsed, index: Mapping[Label, int], words: list[int | None] | None) -> int:
        """Return the label's position."""
        return index[str(label)]

    def dense_targets(self, part: Part, outputs: int) -> npt.NDArray[Any]:
        """Return label positions [texts]."""
        targets: npt.NDArray[Any] = part.targets().to_numpy()
        return targets

    def measure(self, predictions: Predictions, labels: Sequence[str]) -> dict[str, float]:
        """Return accuracy and averaged scores."""
        from sklearn.metrics import accuracy_score, precision_recall_fscore_support

        logits, targets = predictions.logits, predictions.targets
        predicted, every_label = logits.argmax(axis=-1), np.arange(logits.shape[-1])
        macro, weighted = (
            precision_recall_fscore_support(targets, predicted, labels=every_label, average=average, zero_division=0)
            for average in ("macro", "weighted")
        )
        return {
            "accuracy": float(accuracy_score(targets, predicted)),
            "f1_macro": float(macro[2]),
            "f1_weighted": float(weighted[2]),
            "precision_macro": float(macro[0]),
            "recall_macro": float(macro[1]),
        }

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return the accuracy of always saying the most frequent training label (the first of equals)."""
        majority = np.bincount(self.dense_targets(train, len(labels)), minlength=len(labels)).argmax()
        return {"accuracy": float((self.dense_targets(evaluated, len(labels)) == majority).mean())}

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return scores of each label and the confusion matrix beside the metrics."""
        from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

        every_label = np.arange(len(labels))
        predicted = predictions.logits.argmax(axis=-1)
        scores = precision_recall_fscore_support(
            predictions.targets, predicted, labels=every_label, average=None, zero_division=0
        )
        matrix = confusion_matrix(predictions.targets, predicted, labels=every_label)
        return Evaluation(
            metrics=self.measure(predictions, labels),
            intervals={},
            labels=[
                LabelReport(label, float(precision), float(recall), float(f1), int(support))
                for label, precision, recall, f1, support in zip(labels, *scores, strict=True)
            ],
            confusion=[[int(count) for count in row] for row in matrix],
        )
