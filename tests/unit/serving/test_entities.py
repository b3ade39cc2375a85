"""Labelled words to entities, in every scheme that labels come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.entity_labels import find_entities, read_labels
from luthier_serving.answers import Span
from luthier_serving.tasks.entities import join_words

pytestmark = pytest.mark.unit

CASES = [
    ("nothing", "O O O", []),
    ("one name of two words", "B-PER I-PER O", [("PER", 0, 1)]),
    ("two names side by side", "B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
    ("a name at the end", "O B-LOC I-LOC", [("LOC", 1, 2)]),
    ("another kind begins inside", "B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),
    ("inside after outside begins anew", "O I-PER I-PER", [("PER", 1, 2)]),
    ("a gap ends it", "B-PER O I-PER", [("PER", 0, 0), ("PER", 2, 2)]),
    ("IOBES", "S-PER B-LOC I-LOC E-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 3), ("LOC", 4, 4)]),
    ("BILOU", "B-LOC L-LOC U-LOC", [("LOC", 0, 1), ("LOC", 2, 2)]),
    ("a kind with a dash", "B-PER-X I-PER-X", [("PER-X", 0, 1)]),
    ("parts of speech", "NOUN NOUN VERB", [("NOUN", 0, 0), ("NOUN", 1, 1), ("VERB", 2, 2)]),
    ("a label that only looks like a scheme", "X-RAY B- -B", [("X-RAY", 0, 0), ("B-", 1, 1), ("-B", 2, 2)]),
]


def join(line: str) -> list[tuple[str | None, int, int]]:
    labels = tuple(line.split())
    words = [Span(10 * place, 10 * place + 5, place, 0.5) for place in range(len(labels))]
    return [
        (read_labels(labels)[span.label].kind, span.start // 10, span.end // 10) for span in join_words(words, labels)
    ]


@pytest.mark.parametrize(("line", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_words_are_joined_as_their_labels_say(line: str, expected: list[tuple[str, int, int]]) -> None:
    assert join(line) == expected


def test_an_entity_is_as_sure_as_its_words_on_average() -> None:
    [span] = join_words([Span(0, 3, 0, 0.5), Span(4, 9, 1, 1.0)], ("B-PER", "I-PER"))
    assert span == Span(0, 9, 0, 0.75)


@given(st.lists(st.sampled_from(["O", *(f"{letter}-{kind}" for letter in "BIELSU" for kind in ("PER", "LOC"))])))
def test_every_labelled_word_is_in_one_entity_of_its_kind_and_no_other_word_is(labels: list[str]) -> None:
    covered = [(place, kind) for kind, first, last in join(" ".join(labels)) for place in range(first, last + 1)]
    assert covered == [(place, label[2:]) for place, label in enumerate(labels) if label != "O"]


@pytest.mark.parametrize(
    "names", ["O B-PER I-PER E-PER S-PER I-LOC", "O B-PER I-PER L-PER U-PER", "O B I", "NOUN VERB"]
)
@given(data=st.data())
def test_the_entities_that_are_served_are_those_of_the_contract(names: str, data: st.DataObject) -> None:
    labels = tuple(names.split())
    chosen = data.draw(st.lists(st.integers(0, len(labels) - 1), max_size=12))
    served = join_words([Span(place, place, label, 0.5) for place, label in enumerate(chosen)], labels)
    meanings = read_labels(labels)
    assert [(span.start, span.end, meanings[span.label].kind) for span in served] == find_entities(
        meanings[label] for label in chosen
    )


def test_the_words_between_entities_are_stretches_of_their_own_if_they_are_asked_for() -> None:
    labels = ("O", "B-PER", "I-PER")
    words = [Span(place, place, label, 0.5) for place, label in enumerate([0, 0, 1, 2, 0])]
    found = [(span.start, span.end, labels[span.label]) for span in join_words(words, labels, outside=True)]
    assert found == [(0, 1, "O"), (2, 3, "B-PER"), (4, 4, "O")]
