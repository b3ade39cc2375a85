"""Cleaning, labels, duplicates, splitting, measuring and gating, as tables and properties."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.training import DataFile, Preprocessing, Quality, Split, Task
from luthier_artifacts.readers.formats import SourceFile
from luthier_artifacts.readers.rows import Reading, Row
from luthier_trainer.data import duplicates, labels
from luthier_trainer.data.cleaning import Cleaner, Example
from luthier_trainer.data.labels import SeenLabels
from luthier_trainer.data.quality import file_quality, length_limits, measure, token_lengths, with_tokens
from luthier_trainer.data.quality_gates import check_gates
from luthier_trainer.data.scripts import ScriptCount
from luthier_trainer.data.splitting import split_rows
from luthier_trainer.formats.quality_report import LabelCount, Leakage, QualityReport
from luthier_trainer.runtime.errors import InvalidData
from luthier_trainer.tasks.registry import task_of

pytestmark = pytest.mark.unit

SOURCE = SourceFile(Path("nowhere"), "a.csv")


def clean(
    text: Any,
    label: object,
    *,
    pair: str | None = None,
    task: Task = Task.TEXT_CLASSIFICATION,
    names: dict[str, str] | None = None,
    columns: dict[str, str] | None = None,
    **rules: bool,
) -> Example | None:
    cleaner = Cleaner(
        task_of(task), DataFile(uri="s3://data/a.csv", **(columns or {})), Preprocessing(**rules), names or {}
    )
    return cleaner.clean(Row(text, pair, label, 7), SOURCE)


def test_cleaning_normalizes_text_and_label() -> None:
    assert clean("  Very\n GOOD ", " pos", lowercase=True) == Example("very good", None, "pos", 7)
    assert clean(" A  b ", 1.0, strip_whitespace=False) == Example(" A  b ", None, "1", 7)
    assert clean("a", "x", pair=" B\tc ", columns={"text_pair_column": "more"}) == Example("a", "B c", "x", 7)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"text": None, "label": "x"}, "text"),
        ({"text": " \t ", "label": "x"}, "text"),
        ({"text": "good", "label": None}, "label"),
        ({"text": "good", "label": "  "}, "label"),
        ({"text": "good", "label": "x", "columns": {"text_pair_column": "more"}}, "second text"),
        ({"text": ["", " "], "label": ["x", "y"], "task": Task.TOKEN_CLASSIFICATION}, "text"),
    ],
)
def test_a_row_without_text_or_label_is_left_out_or_refused(row: dict[str, Any], what: str) -> None:
    assert clean(**row) is None
    with pytest.raises(InvalidData) as refused:
        clean(**row, drop_missing=False)
    assert str(refused.value) == f"a.csv, line 7 has no {what}, and preprocessing.dropMissing is false."


@pytest.mark.parametrize(
    ("task", "text", "label", "sentence"),
    [
        (Task.TEXT_CLASSIFICATION, "a", {}, "holds {}; a label is text, a number or a boolean."),
        (Task.REGRESSION, "a", "abc", "holds 'abc', which is not a number."),
        (Task.REGRESSION, "a", "x" * 1000, "holds '" + "x" * 299 + "…."),
        (Task.MULTI_LABEL, "a", ["x", None], "holds ['x', None], a list with an empty label."),
    ],
)
def test_a_label_that_is_none_of_the_tasks_is_refused_with_its_place(
    task: Task, text: str, label: object, sentence: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        clean(text, label, task=task)
    assert str(refused.value) == f"a.csv, line 7, column 'label' {sentence}"


def test_words_and_their_labels_are_as_many() -> None:
    task = Task.TOKEN_CLASSIFICATION
    assert clean("New  York sleeps", "B I O", task=task) == Example(["New", "York", "sleeps"], None, ("B", "I", "O"), 7)
    assert clean([" New York", ""], ["B", "O"], task=task) == Example(["New York", ""], None, ("B", "O"), 7)
    with pytest.raises(InvalidData, match=r"^a\.csv, line 7 has 2 words and 3 labels; give each word one, and words"):
        clean("New York", "B I O", task=task)
    with pytest.raises(InvalidData, match=r"^a\.csv, line 7 has 3 words and 2 labels; give each word one, and words"):
        clean("New York sleeps", "B I", task=task)


def test_a_label_map_names_labels_anew_and_keeps_the_others() -> None:
    names = {"0": "negative", "1": "positive"}
    assert [clean("a", cell, names=names).label for cell in (0, "1", 1.0, "neutral")] == [
        "negative",
        "positive",
        "positive",
        "neutral",
    ]
    assert clean("a", "1,0,2", names=names, task=Task.MULTI_LABEL).label == ("2", "negative", "positive")


def seen_labels(*words: str) -> SeenLabels:
    made = SeenLabels()
    for number, word in enumerate(words, 2):
        made.add([word], SOURCE, number)
    return made


@pytest.mark.parametrize(
    ("found", "wanted", "names", "index"),
    [
        ("bab", None, ["a", "b"], {"a": 0, "b": 1}),
        ("ba", ["b", "a", "c"], ["b", "a", "c"], {"b": 0, "a": 1, "c": 2}),
        (["10", "9", "-1"], None, ["-1", "9", "10"], {"-1": 0, "9": 1, "10": 2}),
        (["10", "9", "x"], None, ["10", "9", "x"], {"10": 0, "9": 1, "x": 2}),
        ("10", ["negative", "positive"], ["negative", "positive"], {"0": 0, "1": 1}),
        ("20", ["0", "2"], ["0", "2"], {"0": 0, "2": 1}),
    ],
)
def test_labels_are_learned_sorted_or_taken_in_the_order_of_the_spec(
    found: Iterable[str], wanted: list[str] | None, names: list[str], index: dict[str, int]
) -> None:
    chosen = seen_labels(*found).resolve(wanted, least=2)
    assert (chosen.names, chosen.index) == (names, index)


@pytest.mark.parametrize(
    ("found", "wanted", "sentence"),
    [
        (
            "ab",
            ["a", "c"],
            "a.csv, line 3 has the label 'b', which spec.labels does not name; it names 'a', 'c'.",
        ),
        (
            "02",
            ["negative", "positive"],
            "a.csv, line 3 has the label '2', which spec.labels does not name; it has 2 labels, counted from 0.",
        ),
        (
            "01x",
            ["negative", "positive"],
            "a.csv, line 2 has the label '0', which spec.labels does not name; it names 'negative', 'positive'.",
        ),
        (
            "aa",
            None,
            "a.csv holds only one label, 'a'; a classifier needs at least two. Check that labelColumn is the right "
            "column.",
        ),
        ("", None, "The data holds no label at all; check that labelColumn is the right column."),
    ],
)
def test_a_label_that_the_spec_does_not_name_is_refused_with_its_first_place(
    found: str, wanted: list[str] | None, sentence: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        seen_labels(*found).resolve(wanted, least=2)
    assert str(refused.value) == sentence


def test_a_column_of_texts_is_no_column_of_labels() -> None:
    with pytest.raises(InvalidData, match=r"^a\.csv, line 1002 has the label '1000', and 1000 others came before it"):
        seen_labels(*map(str, range(labels.MAX_LABELS + 1)))
    with pytest.raises(InvalidData, match=r"^a\.csv, line 2 has the label 'x{60}…' of 257 characters, and at most 256"):
        seen_labels("x" * 257)
    assert seen_labels("x" * 256, "y").resolve(None, least=2).names == ["x" * 256, "y"]
    assert len(seen_labels(*map(str, range(labels.MAX_LABELS))).resolve(None, least=2).names) == labels.MAX_LABELS


texts_and_labels = st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("xy")), max_size=40)


def hashed(texts: Iterable[str]) -> duplicates.Hashes:
    """Two columns, of which neither tells texts apart alone."""
    return np.array([[ord(text) // 2, ord(text) % 2] for text in texts], dtype=np.uint64).reshape(-1, 2)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=20), min_size=1, max_size=3).filter(any))
def test_texts_have_the_same_number_where_they_are_the_same(inputs: list[list[str]]) -> None:
    numbers = duplicates.number_texts([hashed(texts) for texts in inputs])
    assert [len(each) for each in numbers] == [len(each) for each in inputs]
    pairs = {
        (text, int(number))
        for texts, each in zip(inputs, numbers, strict=True)
        for text, number in zip(texts, each, strict=True)
    }
    assert len(pairs) == len({text for text, _ in pairs}) == len({number for _, number in pairs})


@given(texts_and_labels)
def test_repeats_and_conflicts_are_those_that_a_dictionary_finds(rows: list[tuple[str, str]]) -> None:
    texts = np.array([ord(text) - 97 for text, _ in rows], dtype=np.int64)
    hashes = np.array([ord(label) for _, label in rows], dtype=np.uint64)
    seen: set[tuple[str, str]] = set()
    expected = []
    for row in rows:
        expected.append(row in seen)
        seen.add(row)
    assert duplicates.repeats(texts, hashes).tolist() == expected
    assert duplicates.conflicts(texts, hashes) == sum(count > 1 for count in Counter(t for t, _ in seen).values())
    assert duplicates.distinct(texts) == len({text for text, _ in rows})


drawn_labels = st.lists(st.sampled_from("abcd"), min_size=2, max_size=60)
splits = st.builds(
    Split,
    fraction=st.integers(1, 99).map(lambda percent: Decimal(percent) / 100),
    test_fraction=st.integers(0, 60).map(lambda percent: Decimal(percent) / 100),
    stratify=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)


def split(drawn: list[str], by: Split) -> list[list[int]]:
    """Row numbers with gaps, as they are where duplicates were dropped."""
    names = sorted(set(drawn), reverse=True)
    strata = np.array([names.index(label) for label in drawn])
    return [part.tolist() for part in split_rows(np.arange(len(drawn)) * 3, strata, names, by)]


@given(drawn_labels, splits)
def test_a_split_loses_nothing_repeats_nothing_and_is_the_same_again(drawn: list[str], by: Split) -> None:
    train, held_out, test = split(drawn, by)
    assert sorted(train + held_out + test) == [3 * index for index in range(len(drawn))]
    assert all(part == sorted(part) for part in (train, held_out, test))
    assert split(drawn, by) == [train, held_out, test]
    assert (train and held_out) or by.stratify
    assert bool(by.test_fraction) >= bool(test)


@given(drawn_labels, splits)
def test_a_stratified_split_has_each_label_in_its_share(drawn: list[str], by: Split) -> None:
    by = by.model_copy(update={"stratify": True})
    train, held_out, test = ([Counter(drawn[row // 3] for row in part)] for part in split(drawn, by))
    for label, count in Counter(drawn).items():
        learned, evaluated, tested = train[0][label], held_out[0][label], test[0][label]
        assert learned >= 1
        assert evaluated == (0 if count == 1 else min(max(1, round(count * float(by.fraction))), count - 1))
        wanted = max(1, round(count * float(by.test_fraction))) if by.test_fraction else 0
        assert tested == min(wanted, count - evaluated - 1)


@given(drawn_labels, splits)
def test_what_is_evaluated_does_not_depend_on_what_is_tested(drawn: list[str], by: Split) -> None:
    untested = by.model_copy(update={"test_fraction": Decimal(0)})
    tested = by.model_copy(update={"test_fraction": Decimal("0.3")})
    assert split(drawn, tested)[1] == split(drawn, untested)[1]


def test_a_split_is_the_one_of_earlier_releases() -> None:
    assert split(list("abbaabab" * 4), Split(fraction="0.25", seed=7))[1] == [6, 12, 36, 51, 60, 78, 90, 93]


def report(
    train: dict[str, int],
    held_out: dict[str, int] | None = None,
    *,
    missing: int = 0,
    repeated: int = 0,
    conflicting: int = 0,
    leaked: int = 0,
    malformed: int = 0,
    lengths: tuple[int, ...] = (3,),
) -> QualityReport:
    held_out = held_out or {}
    learned, evaluated = sum(train.values()), sum(held_out.values())
    rows = max(1, learned + missing + repeated)
    # Fewer texts than rows: what repeats, and what is missing, are none of their own.
    texts = max(1, rows - missing - repeated)
    reading = Reading(tolerant=True)
    for number in range(malformed):
        reading.fault(f"a.csv, line {number + 2} is broken.")
    file = file_quality(
        "a.csv",
        files=1,
        rows=rows,
        missing=missing,
        reading=reading,
        duplicates=repeated,
        texts=texts,
        conflicting=conflicting,
    )
    found = measure(
        [file],
        {"train": len(lengths), "eval": evaluated},
        {
            label: LabelCount(train=train.get(label, 0), eval=held_out.get(label, 0))
            for label in sorted({*train, *held_out})
        },
        {},
        leakage=Leakage(evaluated=10, leaked=leaked, left_out_of_train=leaked),
        scripts={},
    )
    return with_tokens(found, {"train": token_lengths(lengths, 8)}, {})


@pytest.mark.parametrize(
    ("limits", "data", "sentence"),
    [
        (Quality(), report({"a": 5, "b": 5}, {"a": 1, "b": 1}, leaked=10, conflicting=9, lengths=(99,)), None),
        (
            Quality(),
            report({"a": 5, "b": 1}, {"a": 1}),
            "Each label needs at least 2 examples (quality.minExamplesPerLabel), and 'b' has 1; add examples, or "
            "remove these rows.",
        ),
        (Quality(min_examples_per_label=2), report({"a": 5, "b": 2}), None),
        (Quality(min_examples_per_label=3), report({"a": 5, "b": 2}, {"b": 1}), None),
        (Quality(max_missing_fraction="0.1"), report({"a": 5, "b": 4}, missing=1), None),
        (
            Quality(max_missing_fraction="0.1"),
            report({"a": 4, "b": 4}, missing=1),
            "1 of 9 rows of a.csv have no text or no label, which is more than quality.maxMissingFraction = 0.1 "
            "allows.",
        ),
        (Quality(max_malformed_fraction="0.1"), report({"a": 5, "b": 5}, malformed=1), None),
        (
            Quality(max_malformed_fraction="0.1"),
            report({"a": 5, "b": 5}, malformed=2),
            "2 of 10 rows of a.csv cannot be read, which is more than quality.maxMalformedFraction = 0.1 allows. The "
            "first: a.csv, line 2 is broken. a.csv, line 3 is broken.",
        ),
        (Quality(max_duplicate_fraction="0.25"), report({"a": 5, "b": 4}, repeated=3), None),
        (
            Quality(max_duplicate_fraction="0.25"),
            report({"a": 4, "b": 2}, repeated=3),
            "3 of 9 rows of a.csv repeat another row, which is more than quality.maxDuplicateFraction = 0.25 allows.",
        ),
        (Quality(max_conflicting_fraction="0.2"), report({"a": 5, "b": 5}, conflicting=2), None),
        (
            Quality(max_conflicting_fraction="0.2"),
            report({"a": 5, "b": 5}, conflicting=3),
            "3 of 10 texts of a.csv have more than one label, which is more than quality.maxConflictingFraction = 0.2 "
            "allows.",
        ),
        (
            Quality(max_conflicting_fraction="0.2"),
            report({"a": 5, "b": 5}, conflicting=3, repeated=10),
            "3 of 10 texts of a.csv have more than one label, which is more than quality.maxConflictingFraction = 0.2 "
            "allows.",
        ),
        (Quality(max_leakage_fraction="0.1"), report({"a": 5, "b": 5}, leaked=1), None),
        (
            Quality(max_leakage_fraction="0.1"),
            report({"a": 5, "b": 5}, leaked=2),
            "2 of 10 texts for evaluation and test are also in the training file, which is more than "
            "quality.maxLeakageFraction = 0.1 allows.",
        ),
        (Quality(max_imbalance_ratio="2"), report({"a": 8, "b": 3}, {"b": 1}), None),
        (
            Quality(max_imbalance_ratio="2"),
            report({"a": 9, "b": 3}, {"b": 1}),
            "The label 'a' has 9 examples and 'b' has 4, a ratio of 2.25, which is more than "
            "quality.maxImbalanceRatio = 2 allows.",
        ),
        (
            Quality(),
            report({"a": 5, "b": 5}, {"c": 3}),
            "The labels 'c' are only among the examples for evaluation, so they cannot be learned; add training "
            "examples.",
        ),
        (Quality(max_cut_fraction="0.5"), report({"a": 5, "b": 5}, lengths=(3, 8, 9, 40)), None),
        (
            Quality(max_cut_fraction="0.4"),
            report({"a": 5, "b": 5}, lengths=(3, 8, 9, 40)),
            "2 of 4 texts are cut at preprocessing.maxLength, which is more than quality.maxCutFraction = 0.4 allows; "
            "raise maxLength, or shorten the texts.",
        ),
        (Quality(min_examples_per_label=100, max_imbalance_ratio="1"), report({}), None),
    ],
)
def test_a_report_is_judged_by_the_limits(limits: Quality, data: QualityReport, sentence: str | None) -> None:
    if sentence is None:
        check_gates(data, limits)
        return
    with pytest.raises(InvalidData) as refused:
        check_gates(data, limits)
    assert str(refused.value) == sentence


def test_odd_data_that_nothing_forbids_is_warned_of() -> None:
    warnings = report({"a": 50, "b": 2}, {"a": 3}, missing=1, leaked=4, lengths=(9, 3)).warnings
    assert warnings == [
        "1 of 53 rows of a.csv lack text or label and were left out.",
        "4 training examples were left out because their text is in the evaluation or test set.",
        "The most frequent label has 26.5 times the examples of the rarest.",
        "50% of the texts are cut at maxLength = 8 tokens.",
        "Only 3 examples are evaluated, so the metrics are imprecise.",
    ]


@given(st.lists(st.integers(1, 600), min_size=1), st.integers(4, 512))
def test_token_lengths_are_ordered_and_count_what_is_cut(lengths: list[int], limit: int) -> None:
    found = token_lengths(lengths, limit)
    assert min(lengths) == found.min <= found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.max == max(lengths)
    assert found.cut == sum(length > limit for length in lengths)
    assert found.cut_fraction == round(found.cut / len(lengths), 4)


def test_outliers_are_far_from_the_middle_half_and_at_least_a_factor_of_four() -> None:
    assert length_limits([20] * 50) == (5, 80)
    assert length_limits([10] * 30 + [20] * 40 + [40] * 30) == (1, 40 * 4**3)


def test_letters_are_counted_by_script() -> None:
    scripts = ScriptCount()
    scripts.add(["Привет, мир! 123", "hello"])
    scripts.add(["中文ひら", "ｆ𝒳ª", ""])
    letters = 9 + 5 + 4 + 3
    assert scripts.shares() == {
        "Cyrillic": round(9 / letters, 4),
        "Latin": round(6 / letters, 4),
        "Han": round(2 / letters, 4),
        "Hiragana": round(2 / letters, 4),
        "Other": round(2 / letters, 4),
    }
    assert ScriptCount().shares() == {}
