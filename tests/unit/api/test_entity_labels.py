"""What labels of words mean, beside seqeval, by which the rest of the world scores entities."""

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE2, Tokens

from luthier_api.entity_labels import find_entities, kinds_of, read_labels

pytestmark = pytest.mark.unit

KINDS = ("PER", "LOC", "first-name")


def tags(letters: str, outside: str = "O") -> list[str]:
    return [*outside, *(f"{letter}-{kind}" for letter in letters for kind in KINDS)]


def read(labels: list[str], words: list[str]) -> list[tuple[str, int, int]]:
    meaning = dict(zip(labels, read_labels(labels), strict=True))
    return [(entity.kind, entity.first, entity.last) for entity in find_entities(meaning[word] for word in words)]


def seqeval_default(words: list[str]) -> list[tuple[str, int, int]]:
    with warnings.catch_warnings(action="ignore"):  # of labels without a letter it says that they look odd
        return list(get_entities(words))


def some(labels: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(labels), max_size=12)


@pytest.mark.parametrize("letters", ["BI", "IE", "BIES"], ids=["IOB1 and IOB2", "IOE1 and IOE2", "IOBES"])
@given(data=st.data())
def test_whatever_a_model_answers_is_read_as_seqeval_reads_it_by_default(letters: str, data: st.DataObject) -> None:
    words = data.draw(some(tags(letters)))
    assert read(tags(letters), words) == seqeval_default(words)


@given(some(tags("BILU")))
def test_bilou_is_read_as_seqeval_reads_the_same_in_the_letters_that_it_knows(words: list[str]) -> None:
    known = {"L": "E", "U": "S"}
    assert read(tags("BILU"), words) == seqeval_default([known.get(word[0], word[0]) + word[1:] for word in words])


@given(st.lists(st.sampled_from(["B", "I", "O"]), max_size=12))
def test_bare_letters_are_positions_of_one_kind(words: list[str]) -> None:
    expected = [("entity", first, last) for _, first, last in seqeval_default(words)]
    assert read(["B", "I", "O"], words) == expected


@given(some(["O", "PER", "LOC"]))
def test_kinds_without_letters_are_entities_of_neighbouring_words(words: list[str]) -> None:
    found = [(first, last) for _, first, last in read(["O", "PER", "LOC"], words)]
    assert found == [(first, last) for _, first, last in seqeval_default(words)]


def encoded(scheme: Any, entities: list[tuple[int, str]]) -> list[str]:
    """Words that the scheme allows: entities of some length and kind, a word that is outside after each second one."""
    words: list[str] = []
    for number, (length, kind) in enumerate(entities):
        letters = {
            IOB1: ("B" if words and words[-1].endswith(kind) else "I") + "I" * (length - 1),
            IOB2: "B" + "I" * (length - 1),
            IOE2: "I" * (length - 1) + "E",
            IOBES: "S" if length == 1 else "B" + "I" * (length - 2) + "E",
            BILOU: "U" if length == 1 else "B" + "I" * (length - 2) + "L",
        }[scheme]
        words += [f"{letter}-{kind}" for letter in letters]
        words += ["O"] * (number % 2)
    return words


@pytest.mark.parametrize(
    ("scheme", "letters"), [(IOB1, "BI"), (IOB2, "BI"), (IOE2, "IE"), (IOBES, "BIES"), (BILOU, "BILU")]
)
@given(entities=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(KINDS[:2])), max_size=6))
def test_what_the_scheme_allows_is_read_as_seqevals_strict_mode_reads_it(
    scheme: Any, letters: str, entities: list[tuple[int, str]]
) -> None:
    words = encoded(scheme, entities)
    strict = [(entity.tag, entity.start, entity.end - 1) for entity in Tokens(words, scheme).entities]
    assert read(tags(letters), words) == strict
    assert [(kind, last - first + 1) for kind, first, last in strict] == [(kind, length) for length, kind in entities]


@pytest.mark.parametrize(
    ("labels", "words", "expected"),
    [
        ("NOUN VERB", "NOUN NOUN VERB", [("NOUN", 0, 0), ("NOUN", 1, 1), ("VERB", 2, 2)]),
        ("O NOUN VERB", "NOUN NOUN VERB", [("NOUN", 0, 1), ("VERB", 2, 2)]),
        ("O U-PER L-PER B-PER", "U-PER U-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("O E-mail phone", "E-mail E-mail phone", [("E-mail", 0, 1), ("phone", 2, 2)]),
        ("O B-PER I-PER MISC", "B-PER I-PER MISC MISC O", [("PER", 0, 1), ("MISC", 2, 3)]),
        ("B I E S", "B I E S B E", [("entity", 0, 2), ("entity", 3, 3), ("entity", 4, 5)]),
        ("O S-PER", "S-PER S-PER O", [("PER", 0, 0), ("PER", 1, 1)]),
        ("O S L", "S S O L", [("S", 0, 1), ("L", 3, 3)]),
        ("O X-RAY B- -B", "X-RAY X-RAY B- -B", [("X-RAY", 0, 1), ("B-", 2, 2), ("-B", 3, 3)]),
    ],
)
def test_the_whole_set_of_labels_says_what_each_means(
    labels: str, words: str, expected: list[tuple[str, int, int]]
) -> None:
    assert read(labels.split(), words.split()) == expected
    assert set(kinds_of(labels.split())) >= {kind for kind, _, _ in expected}


def test_kinds_are_named_once_and_in_order() -> None:
    assert kinds_of(tags("BI")) == ["LOC", "PER", "first-name"]
    assert kinds_of(["O", "B", "I"]) == ["entity"]
    assert kinds_of(["O"]) == []
