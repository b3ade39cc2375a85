"""Logits to values and values to answers, for each task."""

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.training import Task
from luthier_serving.answers import Answer, ModelInfo, Row, Span, Values
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.interface import Scored, Word
from luthier_serving.tasks.probabilities import sigmoid, softmax

pytestmark = pytest.mark.unit

LABELS = ("O", "B-PER", "I-PER")
# What float32 has, up to where exp() of it would overflow by far.
LOGITS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3)


def model_for(task: Task, *labels: str, threshold: float = 0.5) -> ModelInfo:
    return ModelInfo("v1", "model.onnx", task, labels or LABELS, pairs=False, threshold=threshold)


def test_every_task_of_the_contract_has_an_output() -> None:
    assert set(OUTPUTS) == set(Task)


@given(LOGITS)
def test_probabilities_are_what_the_formulas_say_and_never_overflow(logits: list[float]) -> None:
    rows = np.array([logits], dtype=np.float32)
    shares, each = softmax(rows)[0], sigmoid(rows)[0]
    assert shares.sum() == pytest.approx(1) and np.isfinite(shares).all()
    assert list(shares.argsort()) == list(np.argsort(logits)) or len(set(shares)) < 3
    for logit, share in zip(logits, each, strict=True):
        assert share == pytest.approx(1 / (1 + math.exp(-logit)) if logit > -700 else 0)


@given(st.lists(LOGITS, min_size=1, max_size=5))
def test_a_class_is_the_largest_logit_and_its_probability_is_the_confidence(rows: list[list[float]]) -> None:
    model, output = model_for(Task.TEXT_CLASSIFICATION, "a", "b", "c"), OUTPUTS[Task.TEXT_CLASSIFICATION]
    for logits, values in zip(rows, output.decode(np.array(rows, dtype=np.float32), [], model), strict=True):
        result = output.result("", values, model)
        assert result["confidence"] == result["probabilities"][result["prediction"]] == max(values)
        assert values["abc".index(result["prediction"])] == values[int(np.argmax(logits))]


@given(LOGITS, st.floats(0.01, 0.99))
def test_labels_are_given_from_the_threshold_on(logits: list[float], threshold: float) -> None:
    model, output = model_for(Task.MULTI_LABEL, "a", "b", "c", threshold=threshold), OUTPUTS[Task.MULTI_LABEL]
    [values] = output.decode(np.array([logits], dtype=np.float32), [], model)
    result = output.result("", values, model)
    assert result["prediction"] == [label for label in "abc" if result["probabilities"][label] >= threshold]
    assert list(result["probabilities"]) == ["a", "b", "c"]


def test_a_probability_at_the_threshold_gives_the_label() -> None:
    model, output = model_for(Task.MULTI_LABEL, "a", "b"), OUTPUTS[Task.MULTI_LABEL]
    [values] = output.decode(np.array([[0, -1e-3]], dtype=np.float32), [], model)
    assert output.result("", values, model)["prediction"] == ["a"]


@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_a_number_has_as_many_digits_as_the_model_computes(value: float) -> None:
    model, output = model_for(Task.REGRESSION, "stars"), OUTPUTS[Task.REGRESSION]
    [values] = output.decode(np.array([[value]], dtype=np.float32), [], model)
    number = json.loads(json.dumps(output.result("", values, model)))["prediction"]
    assert number == pytest.approx(value, rel=1e-6, abs=1e-44) and len(f"{number:.10g}".lstrip("-")) <= 13


def test_the_first_token_of_a_word_decides_and_padding_and_special_tokens_do_not_count() -> None:
    logits = np.full((2, 6, 3), -20, dtype=np.float32)
    logits[..., 0] = 0
    # Text 0: [CLS] Zo ##ë sleeps [SEP]; its second piece and its special tokens scream for another label.
    logits[0, 1] = [-20, 0, -20]
    for token in (0, 2, 4, 5):
        logits[0, token] = [-20, -20, 20]
    words = [
        [Word(1, 0, 3), Word(3, 4, 10)],
        [Word(token, token * 2, token * 2 + 1) for token in range(1, 5)],
    ]
    values = OUTPUTS[Task.TOKEN_CLASSIFICATION].decode(logits, words, model_for(Task.TOKEN_CLASSIFICATION))
    model = model_for(Task.TOKEN_CLASSIFICATION)
    scored = [OUTPUTS[Task.TOKEN_CLASSIFICATION].scored(Row(each), model) for each in values]
    assert scored == [[Scored("PER", 1.0, 0, 3)], []]
    assert [span.label for span in values[0]] == [1, 0], "every word is there"


def test_a_text_without_words_has_no_spans() -> None:
    output, model = OUTPUTS[Task.TOKEN_CLASSIFICATION], model_for(Task.TOKEN_CLASSIFICATION)
    assert output.decode(np.zeros((1, 2, 3), dtype=np.float32), [[]], model) == [[]]


def test_an_answer_about_one_text_is_small_on_its_way() -> None:
    assert len(pickle.dumps([0.25] * 2)) < 40
    assert len(pickle.dumps([Span(0, 5, 1, 0.5)] * 2)) < 120


@pytest.mark.parametrize("task", list(Task))
def test_an_answer_is_the_same_after_its_way_to_another_process(task: Task) -> None:
    values: Values = [Span(0, 5, 1, 0.5)] if task is Task.TOKEN_CLASSIFICATION else [0.25, 0.5, 0.25]
    answer = Answer([Row(values), Row([], "failed")], model_for(task), "replica-1")
    assert pickle.loads(pickle.dumps(answer)) == answer


def test_a_row_keeps_its_logits_and_its_cut_tokens_on_its_way_to_another_process() -> None:
    logits = np.array([1.5, -2.0], dtype=np.float32).tobytes()
    answer = Answer([Row([0.9, 0.1], None, False, 7, logits)], model_for(Task.TEXT_CLASSIFICATION, "a", "b"), "r")
    assert pickle.loads(pickle.dumps(answer)).rows[0] == Row([0.9, 0.1], cut_tokens=7, logits=logits)
