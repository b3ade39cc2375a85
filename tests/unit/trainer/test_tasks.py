"""Tasks: how labels are read and encoded, and which metrics may be asked for."""

import json
import subprocess
import sys

import numpy as np
import pytest

from luthier_api.training import DataFile, Gate, Hyperparameters, TrainingSpec
from luthier_trainer.formats.prepared import Part
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.metric_names import all_metrics, check_metric_names, evaluation_metrics
from luthier_trainer.tasks.interface import IGNORED, TaskModule
from support.trainer.answers import MULTI, NUMBER, TAGS, TEXT, WORDS, names_of, part_of, sample, tasks

pytestmark = pytest.mark.unit

FILE = DataFile(uri="file:///a.csv")


# Reading labels


@pytest.mark.parametrize(
    ("task", "cell", "label"),
    [
        (TEXT, 1.0, "1"),
        (TEXT, True, "true"),
        (TEXT, " good ", "good"),
        (TEXT, "", None),
        (TEXT, float("nan"), None),
        (MULTI, "b, a,b,", ("a", "b")),
        (MULTI, ["b", 2, "a"], ("2", "a", "b")),
        (MULTI, 3, ("3",)),
        (MULTI, [], ()),
        (MULTI, ",", ()),
        (MULTI, "", None),
        (MULTI, None, None),
        (NUMBER, "1.5", 1.5),
        (NUMBER, " -2e3 ", -2000.0),
        (NUMBER, 4, 4.0),
        (NUMBER, " ", None),
        (NUMBER, float("nan"), None),
        (WORDS, "O  B-PER\tI-PER", ("O", "B-PER", "I-PER")),
        (WORDS, ["O", "O"], ("O", "O")),
        (WORDS, [], None),
        (WORDS, None, None),
    ],
)
def test_a_label_is_read_from_its_cell(task: TaskModule, cell: object, label: object) -> None:
    parsed = task.parse(cell, FILE)
    assert parsed == label
    assert type(parsed) is type(label)


def test_the_separator_of_labels_can_be_chosen() -> None:
    file = FILE.model_copy(update={"label_separator": "|"})
    assert MULTI.parse("b c|a", file) == ("a", "b c")
    assert WORDS.parse("O|B-PER|O", file) == ("O", "B-PER", "O")


@pytest.mark.parametrize(
    ("task", "cell", "phrase"),
    [
        (TEXT, 1.5, "1.5; a label is text, an integer or a boolean"),
        (TEXT, ["a"], "['a']; a label is text, an integer or a boolean"),
        (MULTI, ["a", 0.5], "0.5; a label is text, an integer or a boolean"),
        (MULTI, ["a", None], "['a', None], a list with an empty label"),
        (NUMBER, "abc", "'abc', which is not a number"),
        (NUMBER, True, "True, which is not a number"),
        (NUMBER, [1], "[1], which is not a number"),
        (NUMBER, "inf", "'inf', which is not a finite number"),
        (NUMBER, "nan", "'nan', which is not a finite number"),
    ],
)
def test_what_is_no_label_is_said(task: TaskModule, cell: object, phrase: str) -> None:
    with pytest.raises(ValueError) as refused:
        task.parse(cell, FILE)
    assert str(refused.value) == phrase


def test_labels_are_counted_renamed_and_kept_apart_by_their_words() -> None:
    names = {"1": "pos", "0": "neg", "-1": "neg"}
    assert (list(TEXT.label_names("1")), TEXT.renamed("1", names), TEXT.stratum("1")) == (["1"], "pos", "1")
    assert list(MULTI.label_names(("0", "1"))) == ["0", "1"]
    assert MULTI.renamed(("-1", "0", "1"), names) == ("neg", "pos")
    assert MULTI.stratum(("a", "b")) == MULTI.stratum(("a", "c")) != MULTI.stratum(())
    assert WORDS.renamed(("1", "x", "0"), names) == ("pos", "x", "neg")
    assert WORDS.stratum(("O", "O")) != WORDS.stratum(("O", "B-PER")) == WORDS.stratum(("B-LOC",))
    assert (list(NUMBER.label_names(1.0)), NUMBER.renamed(1.0, {"1": "x"})) == ([], 1.0)
    assert NUMBER.stratum(1.0) == NUMBER.stratum(2.0)


def test_only_the_first_token_of_a_word_is_learned() -> None:
    index = {tag: position for position, tag in enumerate(TAGS)}
    words = [None, 0, 0, 0, 1, 3, 3, None]  # Word 2 is no token at all, word 4 was cut off.
    target = WORDS.encode(("B-PER", "O", "O", "I-LOC", "B-LOC"), index, words)
    assert target == [IGNORED, 1, IGNORED, IGNORED, 4, 2, IGNORED, IGNORED]


def test_words_without_a_label_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^2 labels and more words$"):
        WORDS.encode(("O", "O"), {"O": 0}, [None, 0, 1, 2, None])


@tasks
def test_targets_come_back_from_the_prepared_data_as_they_were_encoded(task: TaskModule) -> None:
    predictions = sample(task, 40, 1)
    part = part_of(task, predictions)
    assert part.targets().type == task.target_type
    np.testing.assert_array_equal(task.dense_targets(part, len(names_of(task))), predictions.targets)


def test_targets_of_a_part_in_several_batches_are_whole() -> None:
    first, second = sample(MULTI, 5, 1), sample(MULTI, 7, 2)
    batches = [batch for each in (first, second) for batch in part_of(MULTI, each)._batches]
    # A slice begins in the middle of its values.
    whole = Part([batches[0].slice(2), batches[1]])
    expected = np.concatenate([first.targets[2:], second.targets])
    np.testing.assert_array_equal(MULTI.dense_targets(whole, 3), expected)


def test_reading_labels_needs_neither_torch_nor_scikit_learn() -> None:
    program = (
        "import sys, luthier_trainer.tasks.registry as t, luthier_api.training as a; [t.task_of(k) for k in a.Task]; "
    )
    program += "import json; print(json.dumps([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


# Names and directions


@tasks
def test_the_best_metric_is_one_that_is_measured_and_every_error_is_too(task: TaskModule) -> None:
    assert task.best_metric in evaluation_metrics(task)
    assert set(task.errors) <= set(task.metrics)
    assert ("eval_f1_macro" in evaluation_metrics(task)) is (task is not NUMBER)


@tasks
def test_a_worse_model_is_worse_by_the_direction_that_each_metric_has(task: TaskModule) -> None:
    good, bad = (task.measure(sample(task, 400, 1, noise=noise), names_of(task)) for noise in (0.5, 4.0))
    for name in task.metrics:
        assert (good[name] < bad[name]) is (name in task.errors), name


def wire(**fields: object) -> TrainingSpec:
    dataset = {"train": {"uri": "file:///train.csv"}} | fields.pop("dataset", {})  # type: ignore[operator]
    required = {"model": {"uri": "file:///model"}, "output": {"name": "m", "uri": "file:///models"}}
    return TrainingSpec.model_validate({**required, "dataset": dataset, **fields})


@tasks
def test_a_gate_may_ask_for_every_metric_of_the_task(task: TaskModule) -> None:
    for metric in all_metrics(task):
        gates = {"gates": [Gate(metric=metric, threshold="0.5").to_wire()]}
        check_metric_names(wire(task=task.name, evaluation=gates, dataset={"split": {"testFraction": "0.1"}}))
    for metric in evaluation_metrics(task):
        parameters = Hyperparameters(metric_for_best_model=metric).to_wire()
        check_metric_names(wire(task=task.name, hyperparameters=parameters))


def test_a_gate_on_a_test_that_there_is_not_is_refused() -> None:
    gates = {"gates": [{"metric": "test_accuracy", "threshold": "0.5"}]}
    with pytest.raises(InvalidSpec) as refused:
        check_metric_names(wire(evaluation=gates))
    assert str(refused.value) == (
        "evaluation.gates asks for 'test_accuracy', and there is no test data; set dataset.test or "
        "dataset.split.testFraction."
    )
    check_metric_names(wire(evaluation=gates, dataset={"test": {"uri": "file:///test.csv"}}))
