"""Tasks: how labels are read and encoded, and how answers are judged, against scikit-learn and numbers made by hand."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from luthier_api.training import DataFile, Gate, Hyperparameters, Task, TrainingSpec
from luthier_trainer.errors import InvalidSpec
from luthier_trainer.metric_names import all_metrics, check_metric_names, evaluation_metrics
from luthier_trainer.prepared import Part
from luthier_trainer.tasks import IGNORED, Predictions, TaskModule, task_of
from luthier_trainer.tasks.bootstrap import FEWEST_RESAMPLES, RESAMPLES, bootstrap, resamples_for
from luthier_trainer.tasks.confidence import BINS, sigmoid, softmax
from luthier_trainer.tasks.ranking import CURVES, curves
from luthier_trainer.tasks.spans import Scheme

pytestmark = pytest.mark.unit

TEXT, MULTI, NUMBER, WORDS = (task_of(task) for task in Task)
EVERY = [TEXT, MULTI, NUMBER, WORDS]
FILE = DataFile(uri="file:///a.csv")
TAGS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def names_of(task: TaskModule) -> list[str]:
    return {TEXT: ["a", "b", "c"], MULTI: ["a", "b", "c"], NUMBER: ["label"], WORDS: TAGS}[task]


def sample(task: TaskModule, texts: int, seed: int, *, noise: float = 1.5) -> Predictions:
    """Answers that are often right."""
    generator = np.random.default_rng(seed)
    outputs = len(names_of(task))
    rows = generator.integers(1, 6, texts) if task.per_token else np.ones(texts, dtype=np.int64)
    count = int(rows.sum())
    if task is NUMBER:
        targets: Any = generator.normal(size=count).round(1)
        logits = targets[:, None] + generator.normal(size=(count, 1)) * noise
    elif task is MULTI:
        targets = (generator.random((count, outputs)) < 0.4).astype(np.int8)
        logits = (targets - 0.5) * 2 + generator.normal(size=targets.shape) * noise
    else:
        targets = generator.integers(outputs, size=count)
        logits = np.eye(outputs)[targets] * 2 + generator.normal(size=(count, outputs)) * noise
    return Predictions(logits.astype(np.float32), targets, rows, 1.0)


def perfect(predictions: Predictions, task: TaskModule) -> Predictions:
    targets = predictions.targets
    if task is NUMBER:
        logits: Any = targets[:, None]
    elif task is MULTI:
        logits = np.where(targets, 50.0, -50.0)
    else:
        logits = np.eye(len(names_of(task)))[targets] * 99.0
    return Predictions(logits, targets, predictions.rows_per_text, 0.0)


def part_of(task: TaskModule, predictions: Predictions) -> Part:
    """The part that the answers are about."""
    targets: list[Any] = []
    ends = np.cumsum(predictions.rows_per_text)
    for low, high in zip([0, *ends[:-1]], ends, strict=True):
        if task.per_token:
            targets.append([IGNORED, *predictions.targets[low:high].tolist(), IGNORED])
        elif task is MULTI:
            targets.append(np.flatnonzero(predictions.targets[low]).tolist())
        else:
            targets.append(predictions.targets[low].item())
    texts = [" ".join(f"t{i}w{j}" for j in range(n)) for i, n in enumerate(predictions.rows_per_text)]
    return Part.of([[1]] * len(texts), targets, task.target_type, texts=texts)


def evaluate(task: TaskModule, predictions: Predictions, seed: int = 7) -> Any:
    return task.evaluate(predictions, part_of(task, predictions), names_of(task), seed=seed)


tasks = pytest.mark.parametrize("task", EVERY, ids=lambda task: task.name)


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
        (NUMBER, "abc", "'abc', which is no number"),
        (NUMBER, True, "True, which is no number"),
        (NUMBER, [1], "[1], which is no number"),
        (NUMBER, "inf", "'inf', which is no finite number"),
        (NUMBER, "nan", "'nan', which is no finite number"),
    ],
)
def test_what_is_no_label_is_said(task: TaskModule, cell: object, phrase: str) -> None:
    with pytest.raises(ValueError) as refused:
        task.parse(cell, FILE)
    assert str(refused.value) == phrase


def test_labels_are_counted_renamed_and_kept_apart_by_their_words() -> None:
    names = {"1": "pos", "0": "neg", "-1": "neg"}
    assert (list(TEXT.words("1")), TEXT.renamed("1", names), TEXT.stratum("1")) == (["1"], "pos", "1")
    assert list(MULTI.words(("0", "1"))) == ["0", "1"]
    assert MULTI.renamed(("-1", "0", "1"), names) == ("neg", "pos")
    assert MULTI.stratum(("a", "b")) == MULTI.stratum(("a", "c")) != MULTI.stratum(())
    assert WORDS.renamed(("1", "x", "0"), names) == ("pos", "x", "neg")
    assert WORDS.stratum(("O", "O")) != WORDS.stratum(("O", "B-PER")) == WORDS.stratum(("B-LOC",))
    assert (list(NUMBER.words(1.0)), NUMBER.renamed(1.0, {"1": "x"})) == ([], 1.0)
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
    program = "import sys, luthier_trainer.tasks as t, luthier_api.training as a; [t.task_of(k) for k in a.Task]; "
    program += "import json; print(json.dumps([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


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


# Entities


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
    assert read(["B", "I", "N"], [["B", "I", "I"]]) == [(0, 0, "B"), (1, 2, "I")]


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
        "evaluation.gates asks for 'test_accuracy', and there is nothing to test on; name dataset.test, or hold "
        "examples out by dataset.split.testFraction."
    )
    check_metric_names(wire(evaluation=gates, dataset={"test": {"uri": "file:///test.csv"}}))
