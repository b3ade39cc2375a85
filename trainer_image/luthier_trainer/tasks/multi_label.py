"""Multi-label classification: any number of labels for each text, none included.

A label is given from a probability of one half. A cell holds a list (JSON lines, Parquet) or the labels separated by
`labelSeparator`, a comma unless said otherwise. A text without any label is an empty list, or a cell with the separator
alone; an empty cell is a missing label.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.documents import MULTI_LABEL_THRESHOLD
from luthier_api.training import DataFile, Label, Task
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.evaluation import Evaluation
from luthier_trainer.tasks.interface import LossName, ParsedLabel, Predictions
from luthier_trainer.tasks.label_parsing import label_list, repeated
from luthier_trainer.tasks.metrics.argmax_answers import label_reports
from luthier_trainer.tasks.metrics.bootstrap import bootstrap, resamples_for
from luthier_trainer.tasks.metrics.calibration import Reliability, sigmoid
from luthier_trainer.tasks.metrics.confusion_counts import AnswerEvents, Array
from luthier_trainer.tasks.metrics.mistakes import listed, top_mistakes
from luthier_trainer.tasks.metrics.ranking import Rankings, curves

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
        *("roc_auc", "average_precision", "ece"),
    )
    errors: tuple[str, ...] = ("hamming_loss", "ece")
    best_metric = "eval_f1_macro"
    baseline_name = "always the labels of at least half of the texts"
    pipeline_tag = "text-classification"

    def parse(self, cell: object, file: DataFile) -> ParsedLabel | None:
        """Return the labels of a cell, each once and sorted, so that equal sets are equal."""
        labels = label_list(cell, file.label_separator or DEFAULT_SEPARATOR)
        if labels is None:
            return None
        again = repeated(labels)
        # A word twice in a text is harmless. A number twice, or a list that repeats, is no set of labels.
        if again is not None and (not isinstance(cell, str) or again.isdigit()):
            raise ValueError(
                f"{cell!r}, which repeats the label {again!r}; for vectors of 0 and 1 each must have as many numbers "
                "as there are labels"
            )
        return tuple(sorted(set(labels)))

    def label_names(self, label: ParsedLabel) -> Iterable[Label]:
        """Return the labels."""
        return _labels(label)

    def renamed(self, label: ParsedLabel, names: Mapping[str, str]) -> ParsedLabel:
        """Return the set with other names; two labels may become one."""
        return tuple(sorted({names.get(each, each) for each in _labels(label)}))

    def stratum(self, label: ParsedLabel) -> str:
        """Return the first label: whole sets are often unique, and what is unique cannot be divided."""
        return next(iter(_labels(label)), "")

    def encode(self, label: ParsedLabel, index: Mapping[Label, int], word_ids: list[int | None] | None) -> list[int]:
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
        """Return the metrics; accuracy is the share of texts whose whole set is right."""
        return _Scores(predictions).metrics(np.ones(len(predictions.targets)))

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always giving the labels that at least half of the training texts have."""
        share = np.clip(self.dense_targets(train, len(labels)).mean(axis=0), 1e-9, 1 - 1e-9)
        targets = self.dense_targets(evaluated, len(labels))
        logits = np.broadcast_to(np.log(share / (1 - share)), targets.shape)
        every = np.ones(len(targets), dtype=np.int64)
        return self.measure(Predictions(logits, targets, every, float("nan")), labels)

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return everything but a confusion matrix: labels do not exclude each other."""
        scores = _Scores(predictions)
        every = np.ones(scores.size)
        resamples = resamples_for(scores.size + scores.rankings.numbers)
        roc, precision_recall = curves(scores.probabilities, scores.actual, labels, scores.texts)
        wrong = scores.given != scores.actual
        # Of a text's wrong yeses and noes the surest one.
        error_confidence = np.where(wrong, np.maximum(scores.probabilities, 1 - scores.probabilities), 0).max(axis=-1)
        names = np.array(labels, dtype=object)
        return Evaluation(
            metrics=scores.metrics(every),
            intervals=bootstrap(scores.metrics, scores.size, resamples=resamples, seed=seed),
            resamples=resamples,
            labels=label_reports(labels, scores.events.counts(every)),
            calibration=scores.reliability.calibration(),
            roc=roc,
            precision_recall=precision_recall,
            mistakes=top_mistakes(
                part,
                error_confidence,
                wrong.any(axis=-1),
                lambda text: (listed(names[scores.actual[text]]), listed(names[scores.given[text]])),
            ),
        )


class _Scores:
    """The metrics as a function of how often each text counts."""

    def __init__(self, predictions: Predictions) -> None:
        self.actual = predictions.targets != 0
        self.probabilities = sigmoid(predictions.logits)
        self.given = self.probabilities >= MULTI_LABEL_THRESHOLD
        self.size, labels = self.actual.shape
        self.texts = np.arange(self.size)
        self.events = AnswerEvents.of_label_sets(self.given, self.actual)
        self.rankings = Rankings(self.probabilities, self.actual, self.texts)
        # Every label of every text is a claim: that it is there, with this probability.
        claims = np.repeat(self.texts, labels)
        self.reliability = Reliability(self.probabilities.ravel(), self.actual.ravel(), claims, self.size)
        self._whole = (self.given == self.actual).all(axis=-1).astype(np.float64)
        self._off = (self.given != self.actual).mean(axis=-1)

    def metrics(self, weights: Array) -> dict[str, float]:
        counts = self.events.counts(weights)
        return {
            "accuracy": float(weights @ self._whole / weights.sum()),
            "f1_macro": counts.macro(counts.f1()),
            "f1_micro": float(counts.together().f1()[0]),
            "f1_weighted": counts.weighted(counts.f1()),
            "precision_macro": counts.macro(counts.precision()),
            "recall_macro": counts.macro(counts.recall()),
            "hamming_loss": float(weights @ self._off / weights.sum()),
            **self.rankings.areas(weights),
            "ece": self.reliability.error(weights),
        }


def _labels(label: ParsedLabel) -> tuple[str, ...]:
    assert isinstance(label, tuple)
    return label
