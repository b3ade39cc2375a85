"""How far two answers agree: by what they say, for every task, whatever the order of their labels."""

import pytest

from luthier_api.training import Task
from luthier_serving.answers import Answer, ModelInfo, Row, Span, Values
from luthier_serving.replica.agreement import Agreement, compare

pytestmark = pytest.mark.unit

LABELS = ("negative", "positive")


def answered(*rows: Row | Values, task: Task = Task.TEXT_CLASSIFICATION, labels: tuple[str, ...] = LABELS) -> Answer:
    model = ModelInfo("v1", "model.onnx", task, labels, pairs=False, threshold=0.5)
    return Answer([row if isinstance(row, Row) else Row(row) for row in rows], model, "replica-1")


def agreement(one: Answer, two: Answer) -> Agreement:
    return compare(["Ann met Bob in Rome"] * len(one.rows), one, two)


def test_labels_are_compared_by_name_and_not_by_place() -> None:
    swapped = answered([0.9, 0.1], labels=("positive", "negative"))
    assert agreement(answered([0.1, 0.9]), swapped) == Agreement(1.0, pytest.approx(0.0), None)
    found = agreement(answered([0.1, 0.9]), answered([0.7, 0.3]))
    assert found == Agreement(0.0, pytest.approx(0.2), "positive -> negative")


def test_a_request_of_several_texts_counts_the_mean_and_its_first_flip() -> None:
    before = answered([0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7])
    after = answered([0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3])
    assert agreement(before, after) == Agreement(0.5, pytest.approx(0.0), "negative -> positive")


def test_the_shift_of_confidence_is_the_mean_over_the_texts_that_both_answered() -> None:
    lost = Row([], "The model failed on this text.")
    found = agreement(answered([0.1, 0.9], [0.4, 0.6], lost), answered([0.3, 0.7], [0.2, 0.8], lost))
    assert found == Agreement(1.0, pytest.approx(0.2), None)


@pytest.mark.parametrize(("one", "two"), [(0, 1), (1, 0)])
def test_a_text_that_only_one_could_answer_is_a_disagreement(one: int, two: int) -> None:
    rows = [Row([0.1, 0.9]), Row([], "The model failed on this text.")]
    assert agreement(answered(rows[one]), answered(rows[two])) == Agreement(0.0, 0.0, None)


def test_two_that_refuse_a_text_with_the_same_sentence_agree() -> None:
    pairs, poison = Row([], "The model reads pairs.", True), Row([], "The model failed on this text.")
    assert agreement(answered(pairs), answered(pairs)).share == 1.0
    assert agreement(answered(pairs), answered(poison)).share == 0.0


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        (2.0, 2.0, 1.0),
        (0.10, 0.14, 1.0),  # a small number may differ by as much as one of size 1
        (0.10, 0.16, 0.0),
        (100.0, 104.0, 1.0),
        (-100.0, -104.0, 1.0),
        (100.0, 106.0, 0.0),
        (106.0, 100.0, 0.0),
        (104.0, 100.0, 1.0),
        (3.0, -3.0, 0.0),
    ],
)
def test_numbers_agree_within_five_percent_of_the_larger(before: float, after: float, share: float) -> None:
    one, two = (answered([value], task=Task.REGRESSION, labels=("stars",)) for value in (before, after))
    assert agreement(one, two) == Agreement(share, 0.0, None)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ([0.9, 0.9, 0.1], [0.8, 0.7, 0.2], 1.0),
        ([0.9, 0.9, 0.1], [0.9, 0.1, 0.1], 0.0),
        ([0.9, 0.1, 0.1], [0.1, 0.1, 0.1], 0.0),
        ([0.1, 0.1, 0.1], [0.9, 0.1, 0.1], 0.0),
        ([0.1, 0.1, 0.1], [0.2, 0.2, 0.2], 1.0),
    ],
)
def test_lists_of_labels_agree_only_as_a_whole_and_none_agrees_with_none(
    before: list[float], after: list[float], share: float
) -> None:
    one, two = (answered(values, task=Task.MULTI_LABEL, labels=("a", "b", "c")) for values in (before, after))
    assert agreement(one, two).share == share


ANN, BOB, ROME = Span(0, 3, 0, 0.9), Span(8, 11, 0, 0.9), Span(15, 19, 1, 0.9)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ([ANN, BOB], [ANN, BOB], 1.0),
        ([ANN, BOB, ROME], [ANN, BOB], 0.8),  # F1: 2 * 2 / (3 + 2)
        ([ANN], [ANN, BOB, ROME], 0.5),
        ([ANN], [BOB], 0.0),
        ([ANN], [ANN._replace(label=1)], 0.0),
        ([ANN], [ANN._replace(end=7)], 0.0),
        ([ANN], [ANN._replace(confidence=0.5)], 1.0),
        ([], [ANN], 0.0),
        ([ANN], [], 0.0),
        ([], [], 1.0),
    ],
)
def test_spans_are_compared_by_their_f1(before: list[Span], after: list[Span], share: float) -> None:
    one, two = (answered(spans, task=Task.TOKEN_CLASSIFICATION, labels=("PER", "LOC")) for spans in (before, after))
    assert agreement(one, two) == Agreement(pytest.approx(share), 0.0, None)


def test_a_flip_of_long_labels_is_cut_so_that_it_fits_a_report() -> None:
    labels = ("n" * 60, "p" * 500)
    found = agreement(answered([0.9, 0.1], labels=labels), answered([0.1, 0.9], labels=labels))
    assert found.flip == f"{'n' * 60} -> {'p' * 59}…"
