"""What labels of words mean: the one reading of them, by which the trainer scores entities and the server returns them.

Labels of the schemes IOB1, IOB2, IOE1, IOE2, IOBES and BILOU are a position, a dash and a kind, such as `B-PER`:

    B  begins an entity      E, L  ends one         S, U  is one by itself
    I  is inside of one      O     is outside of all

Which scheme it is follows from the whole set of labels:

- Where all labels but O are of that form, or any begins with B- or I-, letters are positions.
- Where the labels are bare letters, among them B or I, there is one kind, `entity`.
- Any other label is a kind by itself. If O is among the labels, neighbouring words of one kind are one entity
  (`PER PER O`). If it is not, every word has a label, as in part-of-speech tagging, and stands alone (`NOUN NOUN`).

A model may answer what its scheme does not allow, such as `O I-PER`. Reading is lenient, as in the CoNLL-2003 shared
task (Tjong Kim Sang and De Meulder, 2003) and in seqeval's default mode, which is what `evaluate.load("seqeval")`
computes: what continues nothing begins an entity, and nothing that the model found is lost. On sequences that the
scheme allows, seqeval's strict modes read the same. L and U, which its default mode does not know, are read as E and S.
"""

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

OUTSIDE = "O"
ONLY_KIND = "entity"


class Position(Enum):
    """Where in an entity a word is."""

    OUTSIDE = auto()
    BEGIN = auto()
    INSIDE = auto()
    END = auto()
    SINGLE = auto()


_LETTERS = {
    "B": Position.BEGIN,
    "I": Position.INSIDE,
    "E": Position.END,
    "L": Position.END,
    "S": Position.SINGLE,
    "U": Position.SINGLE,
}


class WordLabel(NamedTuple):
    """What one label says of a word; outside of all entities there is no kind."""

    position: Position
    kind: str | None


class Entity(NamedTuple):
    """A stretch of words, the last one included."""

    first: int
    last: int
    kind: str


_NO_ENTITY = WordLabel(Position.OUTSIDE, None)


def read_labels(labels: Sequence[str]) -> tuple[WordLabel, ...]:
    """Return what each label means, in their order; the whole set of a model's labels decides."""
    return _read(tuple(labels))


def kinds_of(labels: Sequence[str]) -> list[str]:
    """Return the kinds of entities that labels name, sorted."""
    return sorted({label.kind for label in read_labels(labels) if label.kind is not None})


def begins(previous: WordLabel | None, word: WordLabel) -> bool:
    """Tell whether an entity begins at a word; `previous` is the word before it in the same text, if there is one."""
    if word.kind is None:
        return False
    return (
        previous is None
        or previous.kind != word.kind
        or previous.position in (Position.END, Position.SINGLE)
        or word.position in (Position.BEGIN, Position.SINGLE)
    )


def find_entities(words: Iterable[WordLabel]) -> list[Entity]:
    """Return the entities of one text, in order."""
    entities: list[Entity] = []
    previous = None
    for place, word in enumerate(words):
        if word.kind is not None:
            first = place if begins(previous, word) else entities.pop().first
            entities.append(Entity(first, place, word.kind))
        previous = word
    return entities


@lru_cache(maxsize=64)
def _read(labels: tuple[str, ...]) -> tuple[WordLabel, ...]:
    named = set(labels) - {OUTSIDE}
    if named <= _LETTERS.keys() and named & {"B", "I"}:
        return tuple(WordLabel(_LETTERS[label], ONLY_KIND) if label in named else _NO_ENTITY for label in labels)
    split = {label: _split(label) for label in named}
    positions = all(split.values()) or any(found and label[0] in "BI" for label, found in split.items())
    alone = WordLabel(Position.INSIDE if OUTSIDE in labels or positions else Position.SINGLE, None)

    def read(label: str) -> WordLabel:
        if label == OUTSIDE:
            return _NO_ENTITY
        return (split[label] if positions else None) or alone._replace(kind=label)

    return tuple(read(label) for label in labels)


def _split(label: str) -> WordLabel | None:
    letter, dash, kind = label.partition("-")
    return WordLabel(_LETTERS[letter], kind) if dash and kind and letter in _LETTERS else None
