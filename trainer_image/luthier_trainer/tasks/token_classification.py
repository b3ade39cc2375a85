"""Token classification: one label for each word, such as the parts of names (IOB2) or parts of speech.

Texts come as words. A word may be several tokens: its first one is judged and learned, the others and special tokens
are not (Devlin et al., 2019, section 5.3). Words beyond maxLength are neither learned nor judged.

Accuracy is over all words. Averages of F1 are over the labels other than O, which is most of a text and says nothing
of what was looked for. What counts as one entity, says `luthier_api.entity_labels`; *_entities are over all entities of
all kinds, as the CoNLL evaluation has it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.entity_labels import OUTSIDE
from luthier_api.training import DataFile, Label, Task
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.evaluation import Evaluation, Mistake
from luthier_trainer.tasks.interface import IGNORED, LossName, ParsedLabel, Predictions
from luthier_trainer.tasks.judged_tokens import judged_tokens
from luthier_trainer.tasks.label_parsing import label_list
from luthier_trainer.tasks.metrics.argmax_answers import ArgmaxAnswers, label_reports
from luthier_trainer.tasks.metrics.bootstrap import bootstrap, resamples_for
from luthier_trainer.tasks.metrics.confusion_counts import AnswerEvents, Array, Tally
from luthier_trainer.tasks.metrics.mistakes import top_mistakes
from luthier_trainer.tasks.metrics.ranking import curves
from luthier_trainer.tasks.metrics.spans import Scheme, Spans

_PASSES = 8  # over the words, for each resample


class TokenClassification:
    """One of several labels for each word."""

    name = Task.TOKEN_CLASSIFICATION
    auto_class = "AutoModelForTokenClassification"
    problem_type: str | None = None
    loss: LossName = "cross-entropy"
    per_token = True
    target_type = pa.list_(pa.int32())
    metrics: tuple[str, ...] = (
        *("accuracy", "f1_macro", "f1_weighted"),
        *("precision_entities", "recall_entities", "f1_entities", "ece"),
    )
    errors: tuple[str, ...] = ("ece",)
    best_metric = "eval_f1_macro"
    baseline_name = "always the most frequent label"
    pipeline_tag = "token-classification"

    def parse(self, cell: object, file: DataFile) -> ParsedLabel | None:
        """Return the labels of all words."""
        return label_list(cell, file.label_separator) or None

    def label_names(self, label: ParsedLabel) -> Iterable[Label]:
        """Return the labels."""
        return _labels(label)

    def renamed(self, label: ParsedLabel, names: Mapping[str, str]) -> ParsedLabel:
        """Return the labels by their other names."""
        return tuple(names.get(each, each) for each in _labels(label))

    def stratum(self, label: ParsedLabel) -> str:
        """Return whether anything is found in the text."""
        return "found" if set(_labels(label)) - {OUTSIDE} else ""

    def encode(self, label: ParsedLabel, index: Mapping[Label, int], word_ids: list[int | None] | None) -> list[int]:
        """Return for the first token of each word its label's position, for the others IGNORED.

        Raises:
            ValueError: with a phrase, if there are more words than labels.
        """
        labels, previous, target = _labels(label), None, []
        assert word_ids is not None
        for word in word_ids:
            if word is not None and word >= len(labels):
                raise ValueError(f"{len(labels)} labels and more words")
            target.append(IGNORED if word is None or word == previous else index[labels[word]])
            previous = word
        return target

    def dense_targets(self, part: Part, outputs: int) -> npt.NDArray[Any]:
        """Return label positions [judged tokens]."""
        targets: npt.NDArray[Any] = part.targets().combine_chunks().flatten().to_numpy()
        judged: npt.NDArray[Any] = targets[targets != IGNORED]
        return judged

    def measure(self, predictions: Predictions, labels: Sequence[str]) -> dict[str, float]:
        """Return the metrics."""
        return _Scores(predictions, labels).metrics(np.ones(len(predictions.rows_per_text)))

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always saying the most frequent training label, as sure as it is frequent."""
        counts = np.bincount(self.dense_targets(train, len(labels)), minlength=len(labels))
        targets = self.dense_targets(evaluated, len(labels))
        logits = np.broadcast_to(np.log(np.maximum(counts, 1e-9) / counts.sum()), (len(targets), len(labels)))
        return self.measure(Predictions(logits, targets, judged_tokens(evaluated), float("nan")), labels)

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return everything, and scores of each kind of entity."""
        scores = _Scores(predictions, labels)
        answers = scores.answers
        every = answers.all_texts()
        resamples = resamples_for(_PASSES * len(answers.texts))
        has = answers.actual[:, None] == np.arange(len(labels))
        roc, precision_recall = curves(answers.probabilities, has, labels, answers.texts)
        return Evaluation(
            metrics=scores.metrics(every),
            intervals=bootstrap(scores.metrics, answers.size, resamples=resamples, seed=seed),
            resamples=resamples,
            labels=label_reports(labels, answers.counts()),
            entities=label_reports(scores.scheme.kinds, scores.entities.counts(every)),
            confusion=answers.confusion(),
            calibration=answers.reliability.calibration(),
            roc=roc,
            precision_recall=precision_recall,
            mistakes=_mistakes(part, answers, labels),
        )


class _Scores:
    """The metrics as a function of how often each text counts."""

    def __init__(self, predictions: Predictions, labels: Sequence[str]) -> None:
        self.answers = ArgmaxAnswers(predictions)
        self.scheme = Scheme(labels)
        self._outside = [position for position, label in enumerate(labels) if label == OUTSIDE]
        predicted = self.scheme.spans(self.answers.predicted, self.answers.texts)
        actual = self.scheme.spans(self.answers.actual, self.answers.texts)
        right = Spans(*(column[actual.among(predicted)] for column in actual))
        self.entities = AnswerEvents(
            *(Tally(s.text, s.kind, len(self.scheme.kinds)) for s in (right, predicted, actual))
        )

    def metrics(self, weights: Array) -> dict[str, float]:
        counts = self.answers.events.counts(weights)
        named, entities = counts.without(self._outside), self.entities.counts(weights).together()
        return {
            "accuracy": counts.accuracy(),
            "f1_macro": named.macro(named.f1()),
            "f1_weighted": named.weighted(named.f1()),
            "precision_entities": float(entities.precision()[0]),
            "recall_entities": float(entities.recall()[0]),
            "f1_entities": float(entities.f1()[0]),
            "ece": self.answers.reliability.error(weights),
        }


def _mistakes(part: Part, answers: ArgmaxAnswers, labels: Sequence[str]) -> list[Mistake]:
    """Return of the texts with wrong words those whose surest wrong word is the surest."""
    wrong = answers.predicted != answers.actual
    error_confidence = np.where(wrong, answers.confidence, 0)
    highest = np.zeros(answers.size)
    np.maximum.at(highest, answers.texts, error_confidence)
    starts = np.searchsorted(answers.texts, np.arange(answers.size + 1))

    def describe(text: int) -> tuple[str, str]:
        rows = slice(starts[text], starts[text + 1])
        place = int(error_confidence[rows].argmax())
        row, words = starts[text] + place, part.text(text).split()
        # A text of which words were cut off, or are no token at all, does not say which word the row is.
        word = f"{words[place]}: " if len(words) == rows.stop - rows.start else ""
        return word + labels[answers.actual[row]], word + labels[answers.predicted[row]]

    return top_mistakes(part, highest, highest > 0, describe)


def _labels(label: ParsedLabel) -> tuple[str, ...]:
    assert isinstance(label, tuple)
    return label
