"""What a server replica counts for drift: texts of the last so many seconds, by revision."""

import pytest

from luthier_api.training import Task
from luthier_serving.answers import Answer, Row, Span
from luthier_serving.observe.drift import SLICES, DriftWindows
from support.serving.doubles import MODEL

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(*rows: Row, task: Task = Task.TEXT_CLASSIFICATION) -> Answer:
    return Answer(list(rows), MODEL._replace(task=task), "replica-1")


GOOD, BAD = Row([0.05, 0.95], tokens=5), Row([0.75, 0.25], tokens=20, unknown=10)


def test_each_text_of_a_list_counts_and_one_that_failed_does_not() -> None:
    windows = DriftWindows(60, Clock())
    windows.add("rev-1", answer(GOOD, BAD, Row([], "The model failed on this text."), GOOD))
    found = windows.profile("rev-1", MODEL.labels)
    assert (found.texts, found.labels) == (3, [1, 2, 0])
    assert (found.confidence[7], found.confidence[9]) == (1, 2)
    assert (found.tokens[3], found.tokens[5]) == (2, 1)
    assert (found.unknown[0], found.unknown[6]) == (2, 1)
    assert windows.profile("rev-2", MODEL.labels).texts == 0


def test_what_is_older_than_the_window_no_longer_counts_and_the_rest_does() -> None:
    clock = Clock()
    windows = DriftWindows(60, clock)
    windows.add("rev-1", answer(GOOD))
    clock.now += 30
    windows.add("rev-1", answer(BAD))
    assert windows.profile("rev-1", MODEL.labels).labels == [1, 1, 0]
    clock.now += 31
    assert windows.profile("rev-1", MODEL.labels).labels == [1, 0, 0]
    clock.now += 60
    assert windows.profile("rev-1", MODEL.labels).texts == 0, "also while nobody asks"


def test_memory_does_not_grow_with_time() -> None:
    clock = Clock()
    windows = DriftWindows(60, clock)
    for _ in range(1000):
        clock.now += 7
        windows.add("rev-1", answer(GOOD))
    assert len(windows._slices["rev-1"]) <= SLICES
    windows.keep(["rev-2"])
    assert not windows._slices


def test_tasks_without_labels_for_a_text_count_its_tokens_only() -> None:
    windows = DriftWindows(60, Clock())
    windows.add("rev-1", answer(Row([3.5], tokens=4), task=Task.REGRESSION))
    windows.add("rev-1", answer(Row([Span(0, 3, 1, 0.9)], tokens=4), task=Task.TOKEN_CLASSIFICATION))
    windows.add("rev-2", answer(Row([0.7, 0.2], tokens=4), Row([0.1, 0.2], tokens=4), task=Task.MULTI_LABEL))
    assert (windows.profile("rev-1", []).labels, windows.profile("rev-1", []).tokens[2]) == ([], 2)
    assert windows.profile("rev-2", MODEL.labels).labels == [1, 0, 1], "one label, and one text without any"
