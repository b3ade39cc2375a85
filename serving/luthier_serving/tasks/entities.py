"""Joins labelled words into entities: `B-PER I-PER` is one PER. The contract defines the labels (`entity_labels`)."""

from collections.abc import Iterable

from luthier_api.entity_labels import begins, read_labels
from luthier_serving.answers import Span


def join_words(words: Iterable[Span], labels: tuple[str, ...], outside: bool = False) -> list[Span]:
    """Return the entities in order; each has the label of its first word and the mean confidence of its words.

    Args:
        words: of one text.
        labels: all of the model.
        outside: whether to return the stretches of words between entities too.
    """
    meanings = read_labels(labels)
    entities: list[list[Span]] = []
    previous = None
    for word in words:
        meaning = meanings[word.label]
        if begins(previous, meaning):
            entities.append([word])
        elif meaning.kind is not None:
            entities[-1].append(word)
        elif outside:
            goes_on = previous is not None and previous.kind is None
            entities[-1].append(word) if goes_on else entities.append([word])
        previous = meaning
    return [_join(entity) for entity in entities]


def _join(words: list[Span]) -> Span:
    confidence = sum(word.confidence for word in words) / len(words)
    return Span(words[0].start, words[-1].end, words[0].label, confidence)
