"""From labelled words to entities: `B-PER I-PER` is one PER.

Labels of the schemes IOB1, IOB2, IO, IOBES and BILOU are a letter, a dash and a kind:

    B begins, I is inside, E or L is last, S or U stands alone      O is no entity

A model may answer what the scheme does not allow (I-PER after O). It is read as conlleval does it (Tjong Kim Sang and
De Meulder, CoNLL-2003): whatever does not go on begins anew. A label without such a letter, as in part-of-speech
tagging, stands alone.
"""

from collections.abc import Iterable
from functools import lru_cache

from luthier_serving.answers import Span

OUTSIDE = "O"
ALONE = "U"
GOING_ON = frozenset("IEL")
ENDING = frozenset("ELSU")
LETTERS = frozenset("BIELSU")


@lru_cache(maxsize=4096)
def parts(label: str) -> tuple[str, str]:
    """Return the letter and the kind of a label."""
    if label == OUTSIDE:
        return OUTSIDE, OUTSIDE
    letter, dash, kind = label.partition("-")
    return (letter, kind) if dash and kind and letter in LETTERS else (ALONE, label)


def kind_of(label: str) -> str:
    """Return a label without its letter."""
    return parts(label)[1]


def join_words(words: Iterable[Span], labels: tuple[str, ...]) -> list[Span]:
    """Return the entities that words make, in order; each has the label of its first word and the mean confidence."""
    entities: list[list[Span]] = []
    open_kind = None
    for word in words:
        letter, kind = parts(labels[word.label])
        if letter == OUTSIDE:
            open_kind = None
            continue
        if letter in GOING_ON and kind == open_kind:
            entities[-1].append(word)
        else:
            entities.append([word])
        open_kind = None if letter in ENDING else kind
    return [_join(entity) for entity in entities]


def _join(words: list[Span]) -> Span:
    confidence = sum(word.confidence for word in words) / len(words)
    return Span(words[0].start, words[-1].end, words[0].label, confidence)
