"""Joins labelled words into entities: `B-PER I-PER` is one PER. The contract defines the labels (`entity_labels`)."""

from collections.abc import Iterable

from luthier_api.entity_labels import begins, read_labels
from luthier_serving.answers import Span


def join_words(words: Iterable[Span], labels: tuple[str, ...]) -> list[Span]:
    """Return the entities in order; each has the label of its first word and the mean confidence of its words."""
    meanings = read_labels(labels)
    entities: list[list[Span]] = []
    previous = None
    for word in words:
        meaning = meanings[word.label]
        if begins(previous, meaning):
            entities.append([word])
        elif meaning.kind is not None:
            entities[-1].append(word)
        previous = meaning
    return [_join(entity) for entity in entities]


def _join(words: list[Span]) -> Span:
    confidence = sum(word.confidence for word in words) / len(words)
    return Span(words[0].start, words[-1].end, words[0].label, confidence)
