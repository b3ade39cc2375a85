"""Cleaning, splitting, measuring and gating, as tables and properties."""

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.training import Preprocessing, Quality, Split
from luthier_trainer.cleaning import Cleaned, Example, clean
from luthier_trainer.errors import InvalidData
from luthier_trainer.quality import check_gates, measure, order_labels, token_lengths
from luthier_trainer.readers import Row, Table
from luthier_trainer.splitting import split_examples, without_leakage

pytestmark = pytest.mark.unit


def table(*rows: tuple[str | None, str | None]) -> Table:
    return Table("a.csv", "line", [Row(text, label, number) for number, (text, label) in enumerate(rows, 2)])


def cleaned(*rows: tuple[str | None, str | None]) -> Cleaned:
    return clean(table(*rows), Preprocessing())


def report(train: dict[str, int], held_out: dict[str, int] | None = None, *, missing: int = 0, duplicates: int = 0):
    held_out = held_out or {}
    rows = [(f"{label} {n}", label) for label, count in train.items() for n in range(count)]
    rows += [(None, "x")] * missing + rows[:1] * duplicates
    file = cleaned(*rows)
    evaluated = [Example(f"e {n}", label, n) for label, count in held_out.items() for n in range(count)]
    lengths = {"train": token_lengths([3], 8), "eval": token_lengths([3], 8)}
    return measure([file], sorted({*train, *held_out}), file.examples, evaluated, leaked=0, lengths=lengths)


def test_cleaning_normalizes_texts_and_leaves_out_what_is_missing_or_repeated() -> None:
    result = clean(
        table(("  Very\n GOOD ", " pos"), ("very good", "pos"), ("very good", "neg"), ("  ", "pos"), ("a", None)),
        Preprocessing(lowercase=True),
    )
    assert result.examples == [Example("very good", "pos", 2), Example("very good", "neg", 4)]
    assert (result.missing, result.duplicates, result.conflicting) == (2, 1, 1)


def test_cleaning_keeps_what_it_is_told_to_keep() -> None:
    rows = table((" A  b ", "x"), (" A  b ", "x"))
    result = clean(rows, Preprocessing(strip_whitespace=False, drop_duplicates=False))
    assert [example.text for example in result.examples] == [" A  b ", " A  b "]
    assert result.duplicates == 1


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("good", "x"), (None, "x")], "a.csv, line 3 has no text, and preprocessing.dropMissing is false."),
        ([("good", "x"), ("bad", None)], "a.csv, line 3 has no label, and preprocessing.dropMissing is false."),
    ],
)
def test_a_missing_value_is_an_error_where_it_must_not_be_dropped(rows: list, sentence: str) -> None:
    with pytest.raises(InvalidData) as refused:
        clean(table(*rows), Preprocessing(drop_missing=False))
    assert str(refused.value) == sentence


def test_a_file_without_a_whole_row_is_refused() -> None:
    with pytest.raises(InvalidData, match=r"^a\.csv holds 2 rows, and not one has both a text and a label\.$"):
        cleaned((None, "x"), ("good", None))


labels = st.lists(st.sampled_from("abcd"), min_size=2, max_size=60)
splits = st.builds(
    Split,
    fraction=st.integers(1, 99).map(lambda percent: Decimal(percent) / 100),
    stratify=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)


@given(labels, splits)
def test_a_split_loses_nothing_repeats_nothing_and_is_the_same_again(drawn: list[str], split: Split) -> None:
    examples = [Example(f"text {number}", label, number) for number, label in enumerate(drawn)]
    train, held_out = split_examples(examples, split)
    assert sorted(train + held_out, key=lambda example: example.number) == examples
    assert split_examples(examples, split) == (train, held_out)


@given(labels, splits)
def test_a_stratified_split_has_each_label_in_its_share(drawn: list[str], split: Split) -> None:
    split = split.model_copy(update={"stratify": True})
    _, held_out = split_examples([Example("", label, number) for number, label in enumerate(drawn)], split)
    found = Counter(example.label for example in held_out)
    for label, count in Counter(drawn).items():
        if count == 1:
            assert found[label] == 0
        else:
            assert 1 <= found[label] <= count - 1
            assert abs(found[label] - count * float(split.fraction)) <= 1


@given(st.lists(st.sampled_from("abcdef")), st.lists(st.sampled_from("abcdef")))
def test_no_text_that_is_evaluated_is_learned(train: list[str], held_out: list[str]) -> None:
    evaluated = [Example(text, "x", 0) for text in held_out]
    kept = without_leakage([Example(text, "y", 0) for text in train], evaluated)
    assert {e.text for e in kept} == set(train) - set(held_out)


@pytest.mark.parametrize(
    ("limits", "data", "sentence"),
    [
        (Quality(), report({"a": 5, "b": 5}, {"a": 1, "b": 1}), None),
        (
            Quality(),
            report({"a": 5, "b": 1}, {"a": 1}),
            "Each label needs at least 2 examples (quality.minExamplesPerLabel), and 'b' has 1; add examples, or "
            "remove these rows.",
        ),
        (
            Quality(max_missing_fraction="0.1"),
            report({"a": 5, "b": 4}, missing=1),
            None,
        ),
        (
            Quality(max_missing_fraction="0.1"),
            report({"a": 4, "b": 4}, missing=1),
            "1 of 9 rows of a.csv have no text or no label, which is more than quality.maxMissingFraction = 0.1 "
            "allows.",
        ),
        (
            Quality(max_duplicate_fraction="0.25"),
            report({"a": 4, "b": 2}, duplicates=3),
            "3 of 9 rows of a.csv repeat another row, which is more than quality.maxDuplicateFraction = 0.25 allows.",
        ),
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
    ],
)
def test_a_report_is_judged_by_the_limits(limits: Quality, data, sentence: str | None) -> None:
    if sentence is None:
        check_gates(data, limits)
        return
    with pytest.raises(InvalidData) as refused:
        check_gates(data, limits)
    assert str(refused.value) == sentence


def test_labels_are_learned_sorted_or_taken_in_the_order_of_the_spec() -> None:
    file = cleaned(("x", "b"), ("y", "a"))
    assert order_labels(None, [file]) == ["a", "b"]
    assert order_labels(["b", "a", "c"], [file]) == ["b", "a", "c"]
    with pytest.raises(InvalidData, match=r"^a\.csv, line 2 has the label 'b', which spec\.labels does not name; it n"):
        order_labels(["a", "c"], [file])


def test_a_single_label_is_no_classification() -> None:
    with pytest.raises(InvalidData, match=r"^a\.csv holds only one label, 'a'; a classifier needs at least two\."):
        order_labels(None, [cleaned(("x", "a"), ("y", "a"))])


def test_odd_data_that_nothing_forbids_is_warned_of() -> None:
    warnings = report({"a": 50, "b": 2}, {"a": 3}, missing=1).warnings
    assert warnings == [
        "1 of 53 rows of a.csv lack text or label and were left out.",
        "The most frequent label has 26.5 times the examples of the rarest.",
        "Only 3 examples are evaluated, so the metrics are coarse.",
    ]


@given(st.lists(st.integers(1, 600), min_size=1), st.integers(4, 512))
def test_token_lengths_are_ordered_and_count_what_is_cut(lengths: list[int], limit: int) -> None:
    found = token_lengths(lengths, limit)
    assert found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.max == max(lengths)
    assert found.cut_fraction == round(sum(length > limit for length in lengths) / len(lengths), 4)
