"""Tasks: how labels are read and encoded, and which metrics may be asked for."""

import json
import re
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest

from luthier_api.training import DataFile, Gate, Hyperparameters, TrainingSpec
from luthier_trainer.formats.prepared import Part
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.metric_names import TRAINING, all_metrics, check_metric_names, evaluation_metrics
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
        (TEXT, float("inf"), "inf; a label is text, a number or a boolean"),
        (TEXT, ["a"], "['a']; a label is text, a number or a boolean"),
        (MULTI, ["a", {}], "{}; a label is text, a number or a boolean"),
        (
            MULTI,
            ["a", "b", "a"],
            "['a', 'b', 'a'], which repeats the label 'a'; for vectors of 0 and 1 each must have as "
            "many numbers as there are labels",
        ),
        (MULTI, ["a", None], "['a', None], a list with an empty label"),
        (NUMBER, "abc", "'abc', which is not a number"),
        (NUMBER, True, "True, which is not a number"),
        (NUMBER, [1], "[1], which is not a number"),
        (NUMBER, "inf", "'inf', which is not a finite number"),
    ],
)
def test_what_is_no_label_is_said(task: TaskModule, cell: object, phrase: str) -> None:
    with pytest.raises(ValueError) as refused:
        task.parse(cell, FILE)
    assert str(refused.value) == phrase


LISTS_OF_TEXT = [
    ("['joy', 'love']", ("joy", "love")),
    ('["a","b, c"]', ("a", "b, c")),
    ("['joy' 'love']", ("joy", "love")),
    ("('joy',)", ("joy",)),
    ("{'joy', 'love'}", ("joy", "love")),
    ("[joy, love]", ("joy", "love")),
    ("[3 0\n 7]", ("0", "3", "7")),
    ("[3, 0]", ("0", "3")),
    ("[1. 2.]", ("1", "2")),
    ("['it\\'s', \"b\"]", ("b", "it's")),
    ("[]", ()),
    # What is no list stays what it was.
    ("[a],[b]", ("[a]", "[b]")),
    ("(none)", ("(none)",)),
    ("a,a", ("a",)),
]


@pytest.mark.parametrize(("cell", "labels"), LISTS_OF_TEXT)
def test_a_list_that_became_text_is_read_as_the_list(cell: str, labels: tuple[str, ...]) -> None:
    assert MULTI.parse(cell, FILE) == labels


def test_labels_of_words_that_became_text_are_read_as_lists() -> None:
    assert WORDS.parse("[3 0 7]", FILE) == ("3", "0", "7")
    assert WORDS.parse("['B-PER', 'O']", FILE) == ("B-PER", "O")


@pytest.mark.parametrize(
    ("task", "cell", "why"),
    [
        (MULTI, "[0 1 ... 3]", "from which numpy has left items out; write lists as JSON lines or Parquet"),
        (MULTI, "['joy', lo ve]", "whose items cannot be told apart"),
        (MULTI, "[New York, Rome]", "which seems to be a list that became text"),
        (MULTI, "['joy', 'lo]", "which is not a whole list"),
        (MULTI, "[nan, 'joy']", "a list with an empty label"),
        (WORDS, "[B-PER O]", "which seems to be a list that became text"),
        (TEXT, "['joy']", "a list that became text; give one label, or set task: multi-label if there may be several"),
        (TEXT, "[3]", "a list that became text"),
        (TEXT, "['joy', 'love']", "a list that became text"),
        (NUMBER, "[0.5]", "which is not a number"),
    ],
)
def test_a_list_that_became_text_and_cannot_be_read_is_refused_with_the_fix(
    task: TaskModule, cell: str, why: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        task.parse(cell, FILE)


def test_words_in_brackets_may_be_the_name_of_a_label() -> None:
    assert [TEXT.parse(cell, FILE) for cell in ("[OTHER]", "(a, b)", "[New York]")] == [
        "[OTHER]",
        "(a, b)",
        "[New York]",
    ]


def test_a_number_is_the_same_label_in_every_format() -> None:
    cells: list[tuple[object, ...]] = [(1, 1.0, "1", "1.0", "1.00", Decimal("1.0")), (0.5, "0.5", Decimal("0.5"))]
    cells.append((True, "True", "true"))
    assert [{TEXT.parse(cell, FILE) for cell in same} for same in cells] == [{"1"}, {"0.5"}, {"true"}]
    assert TEXT.parse("1.10", FILE) == "1.10", "a release, not a number"


def test_nan_is_a_missing_label_for_every_task() -> None:
    assert [task.parse(float("nan"), FILE) for task in (TEXT, MULTI, NUMBER, WORDS)] == [None] * 4
    assert NUMBER.parse("NaN", FILE) is None


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
def test_a_gate_may_ask_for_every_metric_of_the_task_that_depends_on_the_weights_alone(task: TaskModule) -> None:
    for metric in set(all_metrics(task)) - set(TRAINING):
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
