"""Metrics of a classifier: the headline ones for status and gates, and everything for metrics.json. No torch.

Names are those of `metric_names`; definitions are scikit-learn's. A label that was never predicted has precision 0.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

Logits = npt.NDArray[np.floating[Any]]
LabelIds = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class LabelReport:
    """How well one label is told from the others."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def classification_metrics(logits: Logits, label_ids: LabelIds) -> dict[str, float]:
    """Return accuracy and averaged scores.

    Args:
        logits: [examples, labels].
        label_ids: [examples].
    """
    predicted = logits.argmax(axis=-1)
    every_label = np.arange(logits.shape[-1])
    macro, weighted = (
        precision_recall_fscore_support(label_ids, predicted, labels=every_label, average=average, zero_division=0)
        for average in ("macro", "weighted")
    )
    return {
        "accuracy": float(accuracy_score(label_ids, predicted)),
        "f1_macro": float(macro[2]),
        "f1_weighted": float(weighted[2]),
        "precision_macro": float(macro[0]),
        "recall_macro": float(macro[1]),
    }


def per_label_report(logits: Logits, label_ids: LabelIds, labels: Sequence[str]) -> list[LabelReport]:
    """Return one row for each label, in the order of the outputs."""
    scores = precision_recall_fscore_support(
        label_ids, logits.argmax(axis=-1), labels=np.arange(len(labels)), average=None, zero_division=0
    )
    return [
        LabelReport(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *scores, strict=True)
    ]


def confusion(logits: Logits, label_ids: LabelIds, labels: Sequence[str]) -> list[list[int]]:
    """Return the confusion matrix: rows are what is true, columns what was predicted."""
    matrix = confusion_matrix(label_ids, logits.argmax(axis=-1), labels=np.arange(len(labels)))
    return [[int(count) for count in row] for row in matrix]


def majority_accuracy(train_labels: Sequence[int], eval_labels: Sequence[int]) -> float:
    """Return the accuracy of always saying the most frequent training label (the first of equals)."""
    counts = Counter(train_labels)
    majority = min(counts, key=lambda label: (-counts[label], label))
    return sum(label == majority for label in eval_labels) / len(eval_labels)
