"""Token classification: one label for each word, such as the parts of names (IOB2) or parts of speech.

Texts come as words. A word may be several tokens: its first one is judged and learned, the others and special tokens
are not (Devlin et al., 2019, section 5.3). Words beyond maxLength are neither learned nor judged.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Label, Task
from luthier_trainer.prepared import Part
from luthier_trainer.tasks import IGNORED, LossName, Parsed, Predictions
from luthier_trainer.tasks.cells import label_list
from luthier_trainer.tasks.counts import Counts
from luthier_trainer.tasks.findings import Evaluation, LabelReport

OUTSIDE = "O"


class TokenClassification:
    """One of several labels for each word."""

    name = Task.TOKEN_CLASSIFICATION
    auto_class = "AutoModelForTokenClassification"
    problem_type: str | None = None
    loss: LossName = "cross-entropy"
    per_token = True
    target_type = pa.list_(pa.int32())
    metrics: tuple[str, ...] = ("accuracy", "f1_macro", "f1_weighted")
    errors: tuple[str, ...] = ()
    best_metric = "eval_f1_macro"
    takes_pairs = False

    def parse(self, cell: object, file: DataFile) -> Parsed | None:
        """Return the labels of all words."""
        return label_list(cell, file.label_separator) or None

    def words(self, label: Parsed) -> Iterable[Label]:
        """Return the labels."""
        return _labels(label)

    def renamed(self, label: Parsed, names: Mapping[str, str]) -> Parsed:
        """Return the labels by their other names."""
        return tuple(names.get(each, each) for each in _labels(label))

    def stratum(self, label: Parsed) -> str:
        """Return which labels there are."""
        return "\n".join(sorted(set(_labels(label)) - {OUTSIDE}))

    def encode(self, label: Parsed, index: Mapping[Label, int], words: list[int | None] | None) -> list[int]:
        """Return for the first token of each word its label's position, for the others IGNORED.

        Raises:
            ValueError: with a phrase, if there are more words than labels.
        """
        labels, previous, target = _labels(label), None, []
        assert words is not None
        for word in words:
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
        """Return accuracy over all words, and F1 over the labels other than O."""
        counts = self._counts(predictions, labels)
        named = counts.without([position for position, label in enumerate(labels) if label == OUTSIDE])
        return {
            "accuracy": float(counts.accuracy()),
            "f1_macro": float(named.macro(named.f1())),
            "f1_weighted": float(named.weighted(named.f1())),
        }

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always saying the most frequent training label."""
        shares = np.bincount(self.dense_targets(train, len(labels)), minlength=len(labels)).astype(float)
        targets = self.dense_targets(evaluated, len(labels))
        logits = np.broadcast_to(shares, (len(targets), len(labels)))
        return self.measure(Predictions(logits, targets, np.ones(len(targets), dtype=np.int64), float("nan")), labels)

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return scores of each label beside the metrics."""
        counts = self._counts(predictions, labels)
        rows = zip(labels, counts.precision(), counts.recall(), counts.f1(), counts.actual, strict=True)
        return Evaluation(
            metrics=self.measure(predictions, labels),
            intervals={},
            labels=[LabelReport(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in rows],
        )

    def _counts(self, predictions: Predictions, labels: Sequence[str]) -> Counts:
        return Counts.of_labels(predictions.logits.argmax(axis=-1), predictions.targets, len(labels))


def _labels(label: Parsed) -> tuple[str, ...]:
    assert isinstance(label, tuple)
    return label
