"""Text classification: one label for each text or pair of texts, of two or more."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Label, Task
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.evaluation import Evaluation
from luthier_trainer.tasks.interface import LossName, ParsedLabel, Predictions
from luthier_trainer.tasks.label_parsing import single_label
from luthier_trainer.tasks.metrics.argmax_answers import ArgmaxAnswers, label_reports
from luthier_trainer.tasks.metrics.bootstrap import bootstrap, resamples_for
from luthier_trainer.tasks.metrics.confusion_counts import Array
from luthier_trainer.tasks.metrics.mistakes import top_mistakes
from luthier_trainer.tasks.metrics.ranking import Rankings, curves


class TextClassification:
    """One of several labels."""

    name = Task.TEXT_CLASSIFICATION
    auto_class = "AutoModelForSequenceClassification"
    problem_type: str | None = "single_label_classification"
    loss: LossName = "cross-entropy"
    per_token = False
    target_type = pa.int32()
    metrics: tuple[str, ...] = (
        *("accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_macro", "mcc"),
        *("roc_auc", "average_precision", "ece"),
    )
    errors: tuple[str, ...] = ("ece",)
    best_metric = "eval_f1_macro"
    baseline_name = "always the most frequent label"
    pipeline_tag = "text-classification"

    def parse(self, cell: object, file: DataFile) -> ParsedLabel | None:
        """Return the label."""
        return single_label(cell)

    def label_names(self, label: ParsedLabel) -> Iterable[Label]:
        """Return the label."""
        return (str(label),)

    def renamed(self, label: ParsedLabel, names: Mapping[str, str]) -> ParsedLabel:
        """Return the label by its other name."""
        return names.get(str(label), label)

    def stratum(self, label: ParsedLabel) -> str:
        """Return the label."""
        return str(label)

    def encode(self, label: ParsedLabel, index: Mapping[Label, int], word_ids: list[int | None] | None) -> int:
        """Return the label's position."""
        return index[str(label)]

    def dense_targets(self, part: Part, outputs: int) -> npt.NDArray[Any]:
        """Return label positions [texts]."""
        targets: npt.NDArray[Any] = part.targets().to_numpy()
        return targets

    def measure(self, predictions: Predictions, labels: Sequence[str]) -> dict[str, float]:
        """Return the metrics; areas are means over the labels, each against all others."""
        return _Scores(predictions).metrics(np.ones(len(predictions.targets)))

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always saying the most frequent training label, as sure as it is frequent."""
        counts = np.bincount(self.dense_targets(train, len(labels)), minlength=len(labels))
        targets = self.dense_targets(evaluated, len(labels))
        # A label that training never showed gets a probability of nearly 0: its logarithm has to be finite.
        logits = np.broadcast_to(np.log(np.maximum(counts, 1e-9) / counts.sum()), (len(targets), len(labels)))
        every = np.ones(len(targets), dtype=np.int64)
        return self.measure(Predictions(logits, targets, every, float("nan")), labels)

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return everything."""
        scores = _Scores(predictions)
        answers = scores.answers
        resamples = resamples_for(answers.size + scores.rankings.numbers)
        roc, precision_recall = curves(answers.probabilities, scores.has, labels, answers.texts)
        return Evaluation(
            metrics=scores.metrics(answers.all_texts()),
            intervals=bootstrap(scores.metrics, answers.size, resamples=resamples, seed=seed),
            resamples=resamples,
            labels=label_reports(labels, answers.counts()),
            confusion=answers.confusion(),
            calibration=answers.reliability.calibration(),
            roc=roc,
            precision_recall=precision_recall,
            mistakes=top_mistakes(
                part,
                answers.confidence,
                answers.predicted != answers.actual,
                lambda text: (labels[answers.actual[text]], labels[answers.predicted[text]]),
            ),
        )


class _Scores:
    """The metrics as a function of how often each text counts."""

    def __init__(self, predictions: Predictions) -> None:
        self.answers = ArgmaxAnswers(predictions)
        probabilities = self.answers.probabilities
        self.has = self.answers.actual[:, None] == np.arange(probabilities.shape[-1])
        self.rankings = Rankings(probabilities, self.has, self.answers.texts)

    def metrics(self, weights: Array) -> dict[str, float]:
        counts = self.answers.events.counts(weights)
        return {
            "accuracy": counts.accuracy(),
            "f1_macro": counts.macro(counts.f1()),
            "f1_weighted": counts.weighted(counts.f1()),
            "precision_macro": counts.macro(counts.precision()),
            "recall_macro": counts.macro(counts.recall()),
            "mcc": counts.matthews(),
            **self.rankings.areas(weights),
            "ece": self.answers.reliability.error(weights),
        }
