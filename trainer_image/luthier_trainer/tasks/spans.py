"""Entities as they are read from the labels of words: spans of words of one kind.

A label is `<position>-<kind>` with the position B (begins), I (inside), E (ends) or S (a single word), or it is O,
outside of all. Where the labels are O and bare positions, there is one kind. Any other label is a kind by itself whose
neighbouring words are one entity. Reading is lenient, as in the CoNLL evaluation script and in seqeval's default mode:
an I- that continues nothing begins an entity. An entity is right when kind, first word and last word are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from luthier_trainer.tasks.counts import Integers

OUTSIDE = "O"
ONLY_KIND = "entity"
_POSITIONS = {"B": 1, "I": 2, "E": 3, "S": 4}
_B, _I, _E, _S = _POSITIONS.values()


class Scheme:
    """What the labels of a model mean.

    Attributes:
        kinds: names of the kinds of entities, sorted.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """Read the labels, in the order of the model's outputs."""
        bare = OUTSIDE in labels and set(labels) <= {OUTSIDE, *_POSITIONS}
        parts = [_parts(f"{label}-{ONLY_KIND}" if bare and label != OUTSIDE else label) for label in labels]
        self.kinds = sorted({kind for _, kind in parts if kind is not None})
        number = {kind: position for position, kind in enumerate(self.kinds)}
        self._position = np.array([position for position, _ in parts], dtype=np.int64)
        self._kind = np.array([-1 if kind is None else number[kind] for _, kind in parts], dtype=np.int64)

    def spans(self, words: Integers, texts: Integers) -> "Spans":
        """Return the entities in label positions [words], each word of the text in `texts`."""
        if not len(words):
            nothing = np.zeros(0, dtype=np.int64)
            return Spans(nothing, nothing, nothing, nothing)
        position, kind = self._position[words], self._kind[words]
        inside = kind >= 0
        # Whether a border lies between each word and the one before it, if both are inside.
        before, after = position[:-1], position[1:]
        broken = (kind[:-1] != kind[1:]) | (texts[:-1] != texts[1:])
        broken |= np.isin(before, (_E, _S)) | np.isin(after, (_B, _S))
        first = inside & np.concatenate([[True], broken | ~inside[:-1]])
        last = inside & np.concatenate([broken | ~inside[1:], [True]])
        starts = np.flatnonzero(first)
        return Spans(starts, np.flatnonzero(last), kind[starts], texts[starts])


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


def _parts(label: str) -> tuple[int, str | None]:
    if label == OUTSIDE:
        return 0, None
    position, dash, kind = label.partition("-")
    if dash and position in _POSITIONS and kind:
        return _POSITIONS[position], kind
    return _I, label
