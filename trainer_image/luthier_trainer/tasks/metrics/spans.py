"""Entities in the labelled words of many texts at once, for scores; `luthier_api.entity_labels` says what labels mean.

An entity is right when its kind, its first word and its last word are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from luthier_api.entity_labels import begins, kinds_of, read_labels
from luthier_trainer.tasks.metrics.confusion_counts import Integers


class Scheme:
    """What the labels of a model mean.

    Attributes:
        kinds: names of the kinds of entities, sorted.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """Read the labels, in the order of the model's outputs."""
        self.kinds = kinds_of(labels)
        self._labels = read_labels(labels)
        number = {kind: position for position, kind in enumerate(self.kinds)}
        self._kind = np.array([-1 if kind is None else number[kind] for _, kind in self._labels], dtype=np.int64)

    def spans(self, words: Integers, texts: Integers) -> "Spans":
        """Return the entities in label positions [words], each word of the text in `texts`."""
        if not len(words):
            nothing = np.zeros(0, dtype=np.int64)
            return Spans(nothing, nothing, nothing, nothing)
        kind = self._kind[words]
        inside = kind >= 0
        # Whether a border lies between each word and the one before it, if both are inside.
        broken = self._begins(words[:-1], words[1:]) | (texts[:-1] != texts[1:])
        first = inside & np.concatenate([[True], broken | ~inside[:-1]])
        last = inside & np.concatenate([broken | ~inside[1:], [True]])
        starts = np.flatnonzero(first)
        return Spans(starts, np.flatnonzero(last), kind[starts], texts[starts])

    def _begins(self, before: Integers, after: Integers) -> npt.NDArray[np.bool_]:
        """Tell of each pair of neighbouring words whether an entity begins at the second."""
        pairs, of_word = np.unique(before * len(self._labels) + after, return_inverse=True)
        answers = [begins(*(self._labels[each] for each in divmod(pair, len(self._labels)))) for pair in pairs.tolist()]
        return np.array(answers, dtype=np.bool_)[of_word]


class Spans(NamedTuple):
    """Entities [spans], in the order of the words: first word, last word, kind, and text."""

    first: Integers
    last: Integers
    kind: Integers
    text: Integers

    def among(self, others: "Spans") -> npt.NDArray[np.bool_]:
        """Tell of each whether it is one of the others."""
        if not len(others.first):
            return np.zeros(len(self.first), dtype=np.bool_)
        # No two entities of one side begin at the same word.
        place = np.minimum(np.searchsorted(others.first, self.first), len(others.first) - 1)
        same: npt.NDArray[np.bool_] = others.first[place] == self.first
        same &= (others.last[place] == self.last) & (others.kind[place] == self.kind)
        return same
