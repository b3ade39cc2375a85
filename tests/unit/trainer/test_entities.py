"""Entities in labelled words: read as the CoNLL evaluation reads them, and right when kind and both ends are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_api.entity_labels import find_entities, read_labels
from luthier_trainer.tasks.interface import Predictions
from luthier_trainer.tasks.metrics.spans import Scheme
from support.trainer.answers import TAGS, WORDS

pytestmark = pytest.mark.unit


def read(labels: list[str], sentences: list[list[str]]) -> list[tuple[int, int, str]]:
    scheme = Scheme(labels)
    words = np.array([labels.index(word) for sentence in sentences for word in sentence], dtype=np.int64)
    texts = np.repeat(np.arange(len(sentences)), [len(sentence) for sentence in sentences])
    spans = scheme.spans(words, texts)
    return [(int(f), int(n), scheme.kinds[k]) for f, n, k in zip(spans.first, spans.last, spans.kind, strict=True)]


@pytest.mark.parametrize(
    ("sentences", "entities"),
    [
        (["O O"], []),
        (["B-PER I-PER O B-LOC"], [(0, 1, "PER"), (3, 3, "LOC")]),
        (["B-PER B-PER I-PER"], [(0, 0, "PER"), (1, 2, "PER")]),
        (["O I-PER I-PER"], [(1, 2, "PER")]),
        (["B-PER I-LOC I-LOC"], [(0, 0, "PER"), (1, 2, "LOC")]),
        (["B-PER S-PER I-PER S-PER"], [(0, 0, "PER"), (1, 1, "PER"), (2, 2, "PER"), (3, 3, "PER")]),
        (["B-PER", "I-PER"], [(0, 0, "PER"), (1, 1, "PER")]),
        (["B-PER I-PER E-PER S-PER I-PER E-PER E-PER"], [(0, 2, "PER"), (3, 3, "PER"), (4, 5, "PER"), (6, 6, "PER")]),
        (["PER PER LOC O PER"], [(0, 1, "PER"), (2, 2, "LOC"), (4, 4, "PER")]),
        (["B-first-name I-first-name B-X"], [(0, 1, "first-name"), (2, 2, "X")]),
    ],
)
def test_entities_are_read_as_the_conll_evaluation_reads_them(sentences: list[str], entities: list[Any]) -> None:
    split = [sentence.split() for sentence in sentences]
    assert read(sorted({word for sentence in split for word in sentence}), split) == entities


def test_bare_positions_are_positions_only_where_nothing_else_is() -> None:
    assert read(["B", "I", "O"], [["B", "I", "B", "O", "I"]]) == [(0, 1, "entity"), (2, 2, "entity"), (4, 4, "entity")]
    assert read(["B", "I", "N"], [["B", "I", "I"]]) == [(0, 0, "B"), (1, 1, "I"), (2, 2, "I")]


def in_turn(sentence: list[str]) -> set[tuple[int, int, str]]:
    """The CoNLL evaluation's reading, word by word."""
    entities, begun = set(), None
    for place, word in enumerate([*sentence, "O"]):
        position, _, kind = word.partition("-")
        if begun is not None and (word == "O" or position == "B" or kind != begun[1]):
            entities.add((begun[0], place - 1, begun[1]))
            begun = None
        if word != "O" and begun is None:
            begun = (place, kind)
    return entities


sentences_of_tags = st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=8), min_size=1, max_size=6)


@given(sentences_of_tags)
@settings(deadline=None)
def test_reading_all_words_at_once_is_reading_them_in_turn(sentences: list[list[str]]) -> None:
    expected, offset = set(), 0
    for sentence in sentences:
        expected |= {(first + offset, last + offset, kind) for first, last, kind in in_turn(sentence)}
        offset += len(sentence)
    assert set(read(TAGS, sentences)) == expected


@pytest.mark.parametrize(
    "labels", ["O B-PER I-PER E-PER S-PER I-LOC", "O B-PER I-PER L-PER U-PER", "O B I", "O PER LOC", "NOUN VERB ADJ"]
)
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_the_entities_that_are_scored_are_those_of_the_contract(labels: str, data: st.DataObject) -> None:
    names = labels.split()
    drawn = st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=8), min_size=1, max_size=6)
    sentences = data.draw(drawn)
    meaning = dict(zip(names, read_labels(names), strict=True))
    expected, offset = [], 0
    for sentence in sentences:
        found = find_entities(meaning[word] for word in sentence)
        expected += [(entity.first + offset, entity.last + offset, entity.kind) for entity in found]
        offset += len(sentence)
    assert read(names, sentences) == expected


@given(sentences_of_tags, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_entities_are_right_when_kind_and_both_ends_are(sentences: list[list[str]], seed: int) -> None:
    true = np.array([TAGS.index(word) for sentence in sentences for word in sentence])
    generator = np.random.default_rng(seed)
    said = np.where(generator.random(len(true)) < 0.3, generator.integers(len(TAGS), size=len(true)), true)
    sizes = np.array([len(sentence) for sentence in sentences])
    measured = WORDS.measure(Predictions(np.eye(len(TAGS))[said], true, sizes, 1.0), TAGS)
    ends = np.cumsum(sizes)
    found: dict[str, set[Any]] = {}
    for side, words in (("true", true), ("said", said)):
        found[side] = {
            (text, *entity)
            for text, (low, high) in enumerate(zip(ends - sizes, ends, strict=True))
            for entity in in_turn([TAGS[word] for word in words[low:high]])
        }
    right = len(found["true"] & found["said"])
    assert measured["precision_entities"] == pytest.approx(right / max(1, len(found["said"])))
    assert measured["recall_entities"] == pytest.approx(right / max(1, len(found["true"])))
