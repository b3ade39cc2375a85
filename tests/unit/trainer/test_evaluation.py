"""What an evaluation finds beside its metrics: intervals, the confusion matrix, calibration, curves, mistakes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.interface import Predictions, TaskModule
from luthier_trainer.tasks.metrics.bootstrap import FEWEST_RESAMPLES, RESAMPLES, bootstrap, resamples_for
from luthier_trainer.tasks.metrics.calibration import BINS, Reliability, sigmoid, softmax
from luthier_trainer.tasks.metrics.ranking import CURVES, curves
from support.trainer.answers import MULTI, NUMBER, TEXT, WORDS, evaluate, names_of, sample, tasks

pytestmark = pytest.mark.unit


# Intervals


@tasks
def test_every_metric_has_an_interval_around_it_that_the_seed_decides(task: TaskModule) -> None:
    predictions = sample(task, 120, 3)
    one, same, other = (evaluate(task, predictions, seed) for seed in (1, 1, 2))
    assert one.resamples == RESAMPLES
    assert tuple(one.intervals) == task.metrics
    for name, (low, high) in one.intervals.items():
        assert low <= one.metrics[name] <= high, name
        assert high > low, name
    assert one.intervals == same.intervals != other.intervals


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    true = np.zeros(400, dtype=np.int64)
    said = (np.arange(400) < 80).astype(int)
    evaluation = evaluate(TEXT, Predictions(np.eye(3)[said] * 2, true, np.ones(400, dtype=np.int64), 1.0))
    error = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert evaluation.intervals["accuracy"] == pytest.approx((0.8 - error, 0.8 + error), abs=0.006)


def test_whole_texts_are_drawn_where_words_are_judged() -> None:
    """Words that are right or wrong together say no more than one word does."""
    generator = np.random.default_rng(0)
    right = generator.random(100) < 0.7
    true, sizes = np.full(2000, 1), np.full(100, 20)
    said = np.where(np.repeat(right, 20), 1, 4)
    evaluation = evaluate(WORDS, Predictions(np.eye(5)[said] * 3, true, sizes, 1.0))
    low, high = evaluation.intervals["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 100), rel=0.15)


def test_an_interval_is_moved_by_the_bias_of_resampling_and_stays_within_what_was_drawn() -> None:
    def spread(weights: Any) -> dict[str, float]:
        """Grows with repeats."""
        return {"repeats": float((weights**2).mean() - 1), "one": 1.0}

    found = bootstrap(spread, 200, resamples=300, seed=0)
    assert found["one"] == (1.0, 1.0)
    low, high = found["repeats"]
    assert low == 0.0 < high < 0.5  # Every draw lies near 1.


@given(st.integers(1, 10**12))
def test_fewer_resamples_are_drawn_only_where_a_thousand_would_take_minutes(numbers: int) -> None:
    resamples = resamples_for(numbers)
    assert FEWEST_RESAMPLES <= resamples <= RESAMPLES
    assert resamples == RESAMPLES or numbers > 300_000


# What else an evaluation finds


def test_the_confusion_matrix_has_truth_in_rows() -> None:
    predictions = sample(TEXT, 80, 5)
    evaluation = evaluate(TEXT, predictions)
    expected = sk.confusion_matrix(predictions.targets, predictions.logits.argmax(axis=-1), labels=range(3))
    assert evaluation.confusion == expected.tolist()
    assert [row.support for row in evaluation.labels] == expected.sum(axis=1).tolist()
    assert evaluate(MULTI, sample(MULTI, 20, 5)).confusion == []


def test_calibration_compares_confidence_with_what_came_true() -> None:
    # 10 answers at 0.9 of which 6 are right, 10 at 0.6 of which 6 are.
    confidence = np.repeat([0.9, 0.6], 10)
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    true = np.array(([0] * 6 + [1] * 4) * 2)
    part = Part.of([[1]] * 20, true.tolist(), TEXT.target_type)
    evaluation = TEXT.evaluate(Predictions(logits, true, np.ones(20, dtype=np.int64), 1.0), part, ["a", "b"], seed=1)
    assert evaluation.calibration is not None
    assert evaluation.calibration.ece == evaluation.metrics["ece"] == pytest.approx(0.5 * 0.3)
    bins = [(each.count, round(each.confidence, 6), each.accuracy) for each in evaluation.calibration.bins]
    assert bins == [(10, 0.6, 0.6), (10, 0.9, 0.6)]
    assert len(evaluation.calibration.bins) <= BINS


def test_a_confidence_of_one_belongs_to_the_highest_bin_of_its_own_text() -> None:
    texts = np.arange(3)
    found = Reliability(np.array([1.0, 0.2, 1.0]), np.array([True, False, False]), texts, 3)
    assert [(each.count, each.confidence, each.accuracy) for each in found.calibration().bins] == [
        (1, pytest.approx(0.2), 0.0),
        (2, 1.0, 0.5),
    ]
    # Only the first text, whose one claim came true.
    assert found.error(np.array([1.0, 0.0, 0.0])) == 0


@given(st.lists(st.floats(-800, 800), min_size=2, max_size=6))
def test_probabilities_of_extreme_logits_are_probabilities(logits: list[float]) -> None:
    row = np.array([logits])
    assert softmax(row).sum() == pytest.approx(1)
    both = sigmoid(row) + sigmoid(-row)
    np.testing.assert_allclose(both, 1)


@pytest.mark.parametrize("task", [TEXT, MULTI, WORDS], ids=lambda task: task.name)
def test_curves_are_short_rise_and_enclose_their_area(task: TaskModule) -> None:
    predictions = sample(task, 3000, 5)
    evaluation = evaluate(task, predictions)
    names = names_of(task)
    assert [curve.label for curve in evaluation.roc] == [curve.label for curve in evaluation.precision_recall] == names
    for curve in evaluation.roc:
        x, y = np.array(curve.points).T
        assert 2 <= len(x) <= 200
        assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
        assert curve.points[0] == (0, 0) and curve.points[-1] == (1, 1)
        assert np.trapezoid(y, x) == pytest.approx(curve.area, abs=0.01)
    for curve in evaluation.precision_recall:
        x, y = np.array(curve.points).T
        assert len(x) <= 200 and (np.diff(x) >= 0).all() and (x[0], x[-1]) == (0, 1)
        assert np.trapezoid(y, x) == pytest.approx(curve.area, abs=0.02)
    if task is not WORDS:
        assert np.mean([curve.area for curve in evaluation.roc]) == pytest.approx(evaluation.metrics["roc_auc"])


def test_of_very_many_labels_the_curves_are_those_of_the_worst() -> None:
    generator = np.random.default_rng(0)
    has = generator.random((300, CURVES + 10)) < 0.3
    has[:, 3] = False
    strength = np.linspace(0, 3, CURVES + 10)[::-1]
    names = [str(label) for label in range(CURVES + 10)]
    roc, precision_recall = curves(has * strength + generator.normal(size=has.shape), has, names, np.arange(300))
    assert len(roc) == len(precision_recall) == CURVES
    assert {"59", "50", "40"} <= {curve.label for curve in precision_recall}
    assert not {"0", "1", "2", "3"} & {curve.label for curve in precision_recall}


def test_mistakes_are_the_surest_wrong_answers_with_their_texts() -> None:
    true = np.array([0, 0, 1, 1])
    logits = np.array([[0.0, 3.0, 0.0], [5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [4.0, 0.0, 0.0]])
    part = Part.of(
        [[1]] * 4, true.tolist(), TEXT.target_type, texts=["w", "x", "y", "z" * 999], pairs=[None, "", "", "q"]
    )
    predictions = Predictions(logits, true, np.ones(4, dtype=np.int64), 1.0)
    first, second = TEXT.evaluate(predictions, part, ["a", "b", "c"], seed=1).mistakes
    assert (first.text, first.expected, first.predicted) == ("z" * 300 + "… | q", "b", "a")
    assert (second.text, second.expected, second.predicted) == ("w", "a", "b")
    assert first.confidence == pytest.approx(float(softmax(logits)[3, 0]))


def test_mistakes_of_several_labels_show_both_sets() -> None:
    predictions = Predictions(np.array([[3.0, 2.0, -4.0], [-1.0, -1.0, -1.0]]), np.array([[1, 0, 0], [0, 0, 0]]),
                              np.ones(2, dtype=np.int64), 1.0)  # fmt: skip
    (mistake,) = evaluate(MULTI, predictions).mistakes
    assert (mistake.expected, mistake.predicted) == ("a", "a, b")
    assert mistake.confidence == pytest.approx(1 / (1 + np.exp(-2)))
    nothing = Predictions(-predictions.logits[:1], np.array([[0, 0, 1]]) * 0, np.ones(1, dtype=np.int64), 1.0)
    assert [(m.expected, m.predicted) for m in evaluate(MULTI, nothing).mistakes] == [("no label", "c")]


def test_mistakes_of_words_name_the_word() -> None:
    true, said = np.array([4, 4, 1, 4, 4]), np.array([4, 4, 0, 0, 4])
    logits = np.eye(5)[said] * np.array([1, 1, 2, 5, 1])[:, None]
    predictions = Predictions(logits, true, np.array([3, 2]), 1.0)
    first, second = evaluate(WORDS, predictions).mistakes
    assert (first.text, first.expected, first.predicted) == ("t1w0 t1w1", "t1w0: O", "t1w0: B-LOC")
    assert (second.text, second.expected, second.predicted) == ("t0w0 t0w1 t0w2", "t0w2: B-PER", "t0w2: B-LOC")


def test_numbers_are_shown_beside_each_other() -> None:
    predictions = sample(NUMBER, 2500, 1)
    evaluation = evaluate(NUMBER, predictions)
    assert len(evaluation.scatter) == 1000
    off = np.abs(predictions.logits[:, 0] - predictions.targets)
    assert evaluation.mistakes[0].confidence == pytest.approx(float(off.max()))
    assert len(evaluation.mistakes) == 20
    worst = int(off.argmax())
    assert float(evaluation.mistakes[0].expected) == pytest.approx(float(predictions.targets[worst]), rel=1e-3)
    pairs = set(zip(predictions.targets.tolist(), predictions.logits[:, 0].astype(float).tolist(), strict=True))
    assert set(evaluation.scatter) <= pairs


@tasks
def test_a_part_of_one_text_is_evaluated_without_complaint(task: TaskModule) -> None:
    evaluation = evaluate(task, sample(task, 1, 4))
    assert all(np.isfinite(value) for bounds in evaluation.intervals.values() for value in bounds)


def test_words_that_are_all_cut_off_are_no_reason_to_fail() -> None:
    predictions = Predictions(np.zeros((0, 5), dtype=np.float32), np.zeros(0, dtype=np.int64), np.array([0, 0]), 0.0)
    evaluation = evaluate(WORDS, predictions)
    assert set(evaluation.metrics.values()) == {0.0}
    assert evaluation.mistakes == []
