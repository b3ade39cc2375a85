"""Answers of which each is one of several labels: what judging texts and judging words have in common."""

from collections.abc import Sequence

import numpy as np

from luthier_trainer.tasks.evaluation import LabelReport
from luthier_trainer.tasks.interface import Predictions
from luthier_trainer.tasks.metrics.calibration import Reliability, softmax
from luthier_trainer.tasks.metrics.confusion_counts import AnswerEvents, Array, ConfusionCounts


class ArgmaxAnswers:
    """The label of the highest logit for each row, beside the true one.

    Attributes:
        size: number of texts.
        texts: [rows] position of the text.
        actual, predicted: [rows] positions of labels.
        probabilities: [rows, labels].
        confidence: [rows] probability of the predicted label.
        events: the answers, to be counted.
        reliability: the confidences, to be compared with what came true.
    """

    def __init__(self, predictions: Predictions) -> None:
        """Take the answers of a model."""
        self.size = len(predictions.rows_per_text)
        self.texts = np.repeat(np.arange(self.size), predictions.rows_per_text)
        self.actual = predictions.targets.astype(np.int64)
        self.predicted = predictions.logits.argmax(axis=-1)
        self.probabilities = softmax(predictions.logits)
        self.confidence: Array = self.probabilities.max(axis=-1)
        labels = predictions.logits.shape[-1]
        self.events = AnswerEvents.of_labels(self.predicted, self.actual, self.texts, labels)
        self.reliability = Reliability(self.confidence, self.predicted == self.actual, self.texts, self.size)

    def counts(self) -> ConfusionCounts:
        """Count each text once."""
        return self.events.counts(self.all_texts())

    def all_texts(self) -> Array:
        """Return the weights by which each text counts once."""
        return np.ones(self.size)

    def confusion(self) -> list[list[int]]:
        """Return how often each label (row) was taken for each (column)."""
        labels = self.probabilities.shape[-1]
        cells = np.bincount(self.actual * labels + self.predicted, minlength=labels * labels)
        return [[int(count) for count in row] for row in cells.reshape(labels, labels)]


def label_reports(labels: Sequence[str], counts: ConfusionCounts) -> list[LabelReport]:
    """Return the scores of each label, whether it occurs or not."""
    scores = zip(labels, counts.precision(), counts.recall(), counts.f1(), counts.actual, strict=True)
    return [LabelReport(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in scores]
