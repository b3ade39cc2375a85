"""How answers are measured, against scikit-learn and numbers made by hand; and what a model must be better than."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.interface import IGNORED, Predictions, TaskModule
from luthier_trainer.tasks.metrics.calibration import softmax
from support.trainer.answers import (
    MULTI,
    NUMBER,
    TAGS,
    TEXT,
    WORDS,
    evaluate,
    names_of,
    part_of,
    perfect,
    sample,
    tasks,
)

pytestmark = pytest.mark.unit


# Metrics


@tasks
@given(seed=st.integers(0, 10_000), texts=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_every_metric_is_measured_and_finite(task: TaskModule, seed: int, texts: int) -> None:
    predictions = sample(task, texts, seed)
    measured = task.measure(predictions, names_of(task))
    assert tuple(measured) == task.metrics
    assert all(np.isfinite(value) for value in measured.values())
    baseline = task.baseline(part_of(task, sample(task, 30, seed + 1)), part_of(task, predictions), names_of(task))
    assert tuple(baseline) == task.metrics
    assert all(np.isfinite(value) for value in baseline.values())


@given(seed=st.integers(0, 10_000), texts=st.integers(2, 60), noise=st.sampled_from([0.0, 1.0, 4.0]))
@settings(max_examples=40, deadline=None)
def test_metrics_of_one_label_are_those_of_scikit_learn(seed: int, texts: int, noise: float) -> None:
    predictions = sample(TEXT, texts, seed, noise=noise)
    # Coarse, so that many scores are equal.
    predictions = dataclasses.replace(predictions, logits=predictions.logits.round())
    true, said = predictions.targets, predictions.logits.argmax(axis=-1)
    probabilities = softmax(predictions.logits)
    macro = sk.precision_recall_fscore_support(true, said, average="macro", zero_division=0)
    defined = [k for k in range(3) if 0 < (true == k).sum() < texts]
    there = [k for k in range(3) if (true == k).any()]
    expected = {
        "accuracy": sk.accuracy_score(true, said),
        "f1_macro": macro[2],
        "f1_weighted": sk.f1_score(true, said, average="weighted", zero_division=0),
        "precision_macro": macro[0],
        "recall_macro": macro[1],
        "mcc": sk.matthews_corrcoef(true, said) if len(set(true) | set(said)) > 1 else 0.0,
        "roc_auc": np.mean([sk.roc_auc_score(true == k, probabilities[:, k]) for k in defined] or [0.5]),
        "average_precision": np.mean([sk.average_precision_score(true == k, probabilities[:, k]) for k in there]),
    }
    measured = TEXT.measure(predictions, names_of(TEXT))
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 10_000), texts=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_metrics_of_several_labels_are_those_of_scikit_learn(seed: int, texts: int) -> None:
    predictions = sample(MULTI, texts, seed)
    true, said = predictions.targets, (predictions.logits >= 0).astype(int)
    occurs = [k for k in range(3) if true[:, k].any() or said[:, k].any()]
    each = sk.precision_recall_fscore_support(true, said, average=None, zero_division=0)
    expected = {
        "accuracy": sk.accuracy_score(true, said),
        "f1_macro": each[2][occurs].mean() if occurs else 0.0,
        "f1_micro": sk.f1_score(true, said, average="micro", zero_division=0),
        "f1_weighted": sk.f1_score(true, said, average="weighted", zero_division=0),
        "precision_macro": each[0][occurs].mean() if occurs else 0.0,
        "recall_macro": each[1][occurs].mean() if occurs else 0.0,
        "hamming_loss": sk.hamming_loss(true, said),
    }
    measured = MULTI.measure(predictions, names_of(MULTI))
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 10_000), texts=st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_metrics_of_numbers_are_those_of_scikit_learn_and_numpy(seed: int, texts: int) -> None:
    predictions = sample(NUMBER, texts, seed)
    true, said = predictions.targets, predictions.logits[:, 0].astype(np.float64)
    measured = NUMBER.measure(predictions, names_of(NUMBER))
    expected = {
        "mse": sk.mean_squared_error(true, said),
        "rmse": sk.root_mean_squared_error(true, said),
        "mae": sk.mean_absolute_error(true, said),
        "r2": sk.r2_score(true, said),
    }
    if len(set(true)) > 1:
        expected["pearson"] = np.corrcoef(true, said)[0, 1]
        # Ties share the mean of their ranks.
        ranks = [[(column < x).sum() + ((column == x).sum() + 1) / 2 for x in column] for column in (true, said)]
        expected["spearman"] = np.corrcoef(*ranks)[0, 1]
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("constant", [0.1, 1e6 + 0.1])
def test_numbers_that_do_not_vary_correlate_with_nothing(constant: float) -> None:
    vary, same = np.arange(7.0), np.full(7, constant)
    for true, said in ((vary, same), (same, vary), (same, same)):
        predictions = Predictions(said[:, None], true, np.ones(7, dtype=np.int64), 1.0)
        measured = NUMBER.measure(predictions, ["label"])
        assert measured["pearson"] == measured["spearman"] == 0.0
        if true is same:
            assert measured["r2"] == float(said is same)


def test_f1_of_words_leaves_out_what_is_outside() -> None:
    o, per, loc = 4, 1, 0
    true = np.array([o, o, o, o, per, loc])
    said = np.array([o, o, o, per, per, o])
    predictions = Predictions(np.eye(5)[said], true, np.array([6]), 1.0)
    measured = WORDS.measure(predictions, TAGS)
    assert measured["accuracy"] == pytest.approx(4 / 6)
    # B-PER: one right of two said and one true, F1 2/3; B-LOC: never said, 0.
    assert measured["f1_macro"] == pytest.approx((2 / 3 + 0) / 2)
    assert measured["f1_weighted"] == pytest.approx((2 / 3 + 0) / 2)
    assert (measured["precision_entities"], measured["recall_entities"]) == (0.5, 0.5)


@tasks
@given(seed=st.integers(0, 10_000), texts=st.integers(2, 40))
@settings(max_examples=25, deadline=None)
def test_perfect_answers_are_perfect_by_every_metric(task: TaskModule, seed: int, texts: int) -> None:
    predictions = perfect(sample(task, texts, seed), task)
    measured = task.measure(predictions, names_of(task))
    single = task in (TEXT, NUMBER) and len(set(predictions.targets.tolist())) == 1
    nothing = not predictions.targets.any() if task is MULTI else (predictions.targets == 4).all()
    for name, value in measured.items():
        if name in task.errors:
            assert value == pytest.approx(0, abs=1e-12), name
        elif name == "roc_auc" and task is MULTI and all(len(set(c)) == 1 for c in predictions.targets.T):
            assert value == 0.5  # Nothing could be ranked.
        elif single and name in ("mcc", "roc_auc", "pearson", "spearman"):
            assert value in (0.0, 0.5)
        elif not (nothing and task in (MULTI, WORDS)):
            assert value == pytest.approx(1), name


@tasks
@given(seed=st.integers(0, 10_000), texts=st.integers(2, 30), order=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_texts_changes_nothing(task: TaskModule, seed: int, texts: int, order: Any) -> None:
    given_ = sample(task, texts, seed)
    positions = list(range(texts))
    order.shuffle(positions)
    starts = np.cumsum(given_.rows_per_text) - given_.rows_per_text
    rows = np.concatenate([np.arange(starts[p], starts[p] + given_.rows_per_text[p]) for p in positions])
    moved = Predictions(given_.logits[rows], given_.targets[rows], given_.rows_per_text[positions], 1.0)
    before, after = (task.measure(each, names_of(task)) for each in (given_, moved))
    assert after == pytest.approx(before, abs=1e-9)


def test_a_label_that_nothing_has_and_nothing_is_said_to_have_lowers_no_mean() -> None:
    true = np.array([0, 1, 0, 1])
    evaluation = evaluate(TEXT, Predictions(np.eye(3)[true] * 9.0, true, np.ones(4, dtype=np.int64), 0.0))
    assert evaluation.metrics["f1_macro"] == evaluation.metrics["roc_auc"] == 1.0
    assert [(row.label, row.f1, row.support) for row in evaluation.labels] == [("a", 1, 2), ("b", 1, 2), ("c", 0, 0)]
    assert [curve.label for curve in evaluation.roc] == ["a", "b"]


# Baselines


def test_the_baseline_always_says_what_is_most_frequent_in_training() -> None:
    train = Part.of([[1]] * 4, [1, 1, 1, 0], pa.int32())
    evaluated = Part.of([[1]] * 4, [1, 0, 0, 2], pa.int32())
    measured = TEXT.baseline(train, evaluated, ["a", "b", "c"])
    assert measured["accuracy"] == 0.25
    assert measured["f1_macro"] == pytest.approx((2 * 1 / (4 + 1)) / 3)
    assert measured["roc_auc"] == 0.5
    assert measured["ece"] == pytest.approx(0.75 - 0.25)


def test_the_baseline_of_several_labels_gives_those_of_half_of_the_texts() -> None:
    train = Part.of([[1]] * 4, [[0, 1], [0], [0, 1], []], MULTI.target_type)
    evaluated = Part.of([[1]] * 2, [[0, 1], [2]], MULTI.target_type)
    measured = MULTI.baseline(train, evaluated, ["a", "b", "c"])
    assert (measured["accuracy"], measured["hamming_loss"]) == (0.5, 0.5)
    assert measured["f1_micro"] == pytest.approx(2 * 2 / (4 + 3))


def test_the_baseline_of_numbers_is_the_mean() -> None:
    train = Part.of([[1]] * 3, [0.1, 0.2, 0.3], NUMBER.target_type)
    evaluated = Part.of([[1]] * 2, [0.1, 0.4], NUMBER.target_type)
    measured = NUMBER.baseline(train, evaluated, ["label"])
    assert measured["mae"] == pytest.approx(0.15)
    assert measured["mse"] == pytest.approx(0.025)
    assert measured["r2"] == pytest.approx(1 - 0.025 / 0.0225)
    assert measured["pearson"] == measured["spearman"] == 0.0


def test_the_baseline_of_words_finds_nothing() -> None:
    train = Part.of([[1]], [[IGNORED, 4, 4, 1, IGNORED]], WORDS.target_type)
    evaluated = Part.of([[1]] * 2, [[IGNORED, 4, IGNORED, 1, 3, IGNORED], [IGNORED, 4]], WORDS.target_type)
    measured = WORDS.baseline(train, evaluated, TAGS)
    assert measured["accuracy"] == 0.5
    assert measured["f1_macro"] == measured["f1_entities"] == 0.0
