"""Labels as people bring them: vectors of 0 and 1, a column each, numbers with names elsewhere, names that none has."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.runtime.errors import InvalidData, InvalidSpec
from support.trainer.pipeline import Rows, prepare

pytestmark = pytest.mark.unit


def labels_by_text(made: PreparedFolder) -> dict[str, Any]:
    """The names of each example's labels, of all parts."""
    found = {}
    for part in (made.train, made.held_out):
        for index in range(len(part)):
            target = part.target(index)
            names = made.data.labels
            found[part.text(index)] = [names[each] for each in target] if isinstance(target, list) else names[target]
    return found


def jsonl(*labels: Any, repeat: int = 4) -> Rows:
    return [(f"good {number} {again}", label) for again in range(repeat) for number, label in enumerate(labels)]


@pytest.mark.parametrize(
    "vectors",
    [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]],
        [[1, 0, 0], [0, 1, 1], [0, 0, 0]],
        [[True, False, False], [False, True, True], [False, False, False]],
        ["[1, 0, 0]", "[0, 1, 1]", "[0, 0, 0]"],
        ["[1. 0. 0.]", "[0. 1. 1.]", "[0. 0. 0.]"],
        ["1,0,0", "0,1,1", "0,0,0"],
    ],
    ids=str,
)
def test_a_vector_of_zeros_and_ones_is_read_by_the_names_in_the_spec(tmp_path: Path, vectors: list[Any]) -> None:
    made = prepare(tmp_path, {"train/a.jsonl": jsonl(*vectors)}, task="multi-label", labels=["toxic", "rude", "spam"])
    found = labels_by_text(made)
    assert made.data.labels == ["toxic", "rude", "spam"]
    assert [found["good 0 1"], sorted(found["good 1 1"]), found["good 2 1"]] == [["toxic"], ["rude", "spam"], []]


def test_a_vector_in_parquet_is_read_like_one_in_json(tmp_path: Path) -> None:
    rows = jsonl([1.0, 0.0], [0.0, 1.0])
    content = parquet(text=[text for text, _ in rows], label=[label for _, label in rows])
    made = prepare(tmp_path, {"train/a.parquet": content}, task="multi-label", labels=["toxic", "rude"])
    assert labels_by_text(made)["good 1 1"] == ["rude"]


@pytest.mark.parametrize(
    ("labels", "cells", "sentence"),
    [
        (
            None,
            [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
            "a.jsonl, line 1, column 'label' holds [1.0, 0.0, 0.0], a vector of 3 numbers 0 and 1: name these 3 labels "
            "in spec.labels, in their order.",
        ),
        (
            ["toxic", "rude"],
            [[1, 0, 0], [0, 1, 1]],
            "a.jsonl, line 1, column 'label' holds [1, 0, 0], a vector of 3 numbers 0 and 1, and spec.labels names 2 "
            "labels; name one for each number.",
        ),
        (
            ["toxic", "rude", "spam"],
            [[1, 0, 0], [0, 1]],
            "a.jsonl, line 2, column 'label' holds [0, 1], and other rows hold vectors of 3 numbers 0 and 1.",
        ),
        (
            ["toxic", "rude", "spam"],
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]],
            "a.jsonl, line 2, column 'label' holds [0.0, 1.0, 0.5], and other rows hold vectors of 3 numbers 0 and 1.",
        ),
        (
            None,
            [["joy"], ["joy", "love", "joy"]],
            "a.jsonl, line 2, column 'label' holds ['joy', 'love', 'joy'], which repeats the label 'joy'; for vectors "
            "of 0 and 1 each must have as many numbers as there are labels.",
        ),
        (None, [[2, 0], [0, 0]], "a.jsonl, line 2, column 'label' holds [0, 0], which repeats the label '0'; for vec"),
    ],
)
def test_what_is_no_set_of_labels_is_refused_in_one_sentence(
    tmp_path: Path, labels: list[str] | None, cells: list[Any], sentence: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        prepare(tmp_path, {"train/a.jsonl": jsonl(*cells)}, task="multi-label", labels=labels)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize("positions", [[[0], [1]], [[0, 1], [1], []], [[1], [0, 1]], [[0, 1], [1, 2]]], ids=str)
def test_positions_of_labels_are_no_vectors(tmp_path: Path, positions: list[list[int]]) -> None:
    names = ["joy", "love", "grief"][: max(max(each, default=0) for each in positions) + 1]
    made = prepare(tmp_path, {"train/a.jsonl": jsonl(*positions)}, task="multi-label", labels=names)
    assert labels_by_text(made)["good 0 1"] == [names[each] for each in positions[0]]


def test_what_may_be_both_is_what_the_training_data_is(tmp_path: Path) -> None:
    files = {"train/a.jsonl": jsonl([0], [1], [0, 1]), "eval/b.jsonl": [("bad", [0, 1]), ("film", [1, 0])]}
    made = prepare(tmp_path / "positions", files, task="multi-label", labels=["joy", "love"])
    assert labels_by_text(made)["bad"] == ["joy", "love"]
    files["train/a.jsonl"] = jsonl([0, 0], [1, 0], [0, 1])
    made = prepare(tmp_path / "vectors", files, task="multi-label", labels=["joy", "love"])
    assert labels_by_text(made)["bad"] == ["love"]


KAGGLE = b"""id,text,toxic,obscene
1,good film,0,0
2,bad film,1,0
3,bad bad,1,1
4,film,0,1.0
5,film film,0,
6,good bad,-1,-1
7,good good,true,false
"""


def test_a_table_with_a_column_for_each_label_is_read(tmp_path: Path) -> None:
    dataset = {
        "train": {"uri": "s3://data/train.csv", "labelColumns": ["toxic", "obscene"]},
        "quality": {"maxMissingFraction": "0.5"},
    }
    made = prepare(tmp_path, {"train/a.csv": KAGGLE}, task="multi-label", dataset=dataset)
    assert made.data.labels == ["toxic", "obscene"]
    assert labels_by_text(made) == {
        "good film": [],
        "bad film": ["toxic"],
        "bad bad": ["toxic", "obscene"],
        "film": ["obscene"],
        "good good": ["toxic"],
    }
    assert made.quality.files[0].missing == 2, "an empty cell and -1 are no label"
    dataset["labelMap"] = {"toxic": "rude"}
    made = prepare(tmp_path, {"train/a.csv": KAGGLE}, task="multi-label", dataset=dataset)
    assert made.data.labels == ["rude", "obscene"]


def test_one_column_of_zeros_and_ones_is_one_label(tmp_path: Path) -> None:
    dataset = {
        "train": {"uri": "s3://data/train.csv", "labelColumns": ["toxic"]},
        "quality": {"maxMissingFraction": "1"},
    }
    made = prepare(tmp_path, {"train/a.csv": KAGGLE}, task="multi-label", dataset=dataset)
    assert (made.data.labels, labels_by_text(made)["bad film"]) == (["toxic"], ["toxic"])


def test_a_column_that_is_no_label_is_named(tmp_path: Path) -> None:
    dataset = {"train": {"uri": "s3://data/train.csv", "labelColumns": ["toxic", "id"]}}
    with pytest.raises(InvalidData, match=r"^a\.csv, line 3 holds '2' in 'id'; labelColumns hold 0 and 1\.$"):
        prepare(tmp_path, {"train/a.csv": KAGGLE}, task="multi-label", dataset=dataset)


def test_a_label_that_no_row_of_its_column_has_is_no_output(tmp_path: Path) -> None:
    dataset = {"train": {"uri": "s3://data/train.csv", "labelColumns": ["toxic", "threat"]}}
    rows: Rows = [(f"good {number}", number % 2, 0) for number in range(9)]
    with pytest.raises(InvalidData, match=r"^Each label needs at least 2 examples .*'threat' has 0"):
        prepare(tmp_path, {"train/a.jsonl": rows}, ("text", "toxic", "threat"), task="multi-label", dataset=dataset)


def parquet(features: Any = None, **columns: Any) -> bytes:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


CLASS_LABEL = {"names": ["neg", "pos"], "_type": "ClassLabel"}
IMDB = parquet({"label": CLASS_LABEL}, text=[f"good {n}" for n in range(9)], label=[0, 1, 1, 0, 1, 0, -1, 0, 1])


def test_names_that_datasets_left_in_parquet_are_used_and_minus_one_is_no_label(tmp_path: Path) -> None:
    dataset = {"quality": {"maxMissingFraction": "0.2"}}
    made = prepare(tmp_path, {"train/a.parquet": IMDB}, dataset=dataset)
    assert made.data.labels == ["neg", "pos"]
    assert made.quality.files[0].missing == 1
    assert made.quality.files[0].read_as == ["Parquet, labels named by the file's ClassLabel"]
    assert labels_by_text(made)["good 1"] == "pos"


@pytest.mark.parametrize(
    ("spec", "labels", "label"),
    [
        ({"labels": ["pos", "neg"]}, ["pos", "neg"], "pos"),
        # Names of the spec's own count from 0, as they always did.
        ({"labels": ["bad", "good"]}, ["bad", "good"], "good"),
        ({"dataset": {"labelMap": {"0": "bad", "1": "good"}}}, ["bad", "good"], "good"),
        ({"dataset": {"labelMap": {"pos": "good"}}}, ["good", "neg"], "good"),
    ],
)
def test_names_of_the_spec_come_before_those_of_the_file(
    tmp_path: Path, spec: dict[str, Any], labels: list[str], label: str
) -> None:
    spec = {**spec, "dataset": {**spec.get("dataset", {}), "quality": {"maxMissingFraction": "0.2"}}}
    made = prepare(tmp_path, {"train/a.parquet": IMDB}, **spec)
    assert (made.data.labels, labels_by_text(made)["good 1"]) == (labels, label)


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": CLASS_LABEL, "length": -1, "_type": "Sequence"},
        {"feature": CLASS_LABEL, "_type": "List"},
        [CLASS_LABEL],
    ],
)
def test_names_of_labels_in_lists_are_used(tmp_path: Path, feature: Any) -> None:
    content = parquet({"label": feature}, text=[f"good {n}" for n in range(9)], label=[[0, 1], [1], []] * 3)
    found = labels_by_text(prepare(tmp_path, {"train/a.parquet": content}, task="multi-label"))
    assert (found["good 0"], found["good 1"], found["good 2"]) == (["neg", "pos"], ["pos"], [])


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    content = parquet({"label": CLASS_LABEL}, text=["good", "bad"], label=[0, 2])
    sentence = r"^a\.parquet, row 2, column 'label' holds 2, and the file has names of 2 labels, counted from 0\.$"
    with pytest.raises(InvalidData, match=sentence):
        prepare(tmp_path, {"train/a.parquet": content})


@pytest.mark.parametrize("features", [{}, {"label": {"_type": "Value"}}, {"label": []}, "broken", {"label": "x"}])
def test_other_metadata_of_a_parquet_file_decides_nothing(tmp_path: Path, features: Any) -> None:
    content = parquet(features, text=[f"good {n}" for n in range(8)], label=[0, 1, -1, -1] * 2)
    assert prepare(tmp_path, {"train/a.parquet": content}).data.labels == ["-1", "0", "1"]


def mapped(tmp_path: Path, label_map: dict[str, str], *labels: Any) -> PreparedFolder:
    return prepare(tmp_path, {"train/a.csv": jsonl(*labels)}, dataset={"labelMap": label_map})


@pytest.mark.parametrize(
    ("label_map", "labels", "sentence"),
    [
        (
            {"false": "negative", "true": "positive"},
            ["no", "yes"],
            "labelMap renames 'false', which no label of the data is, and the data has 'no': YAML reads no without "
            'quotes as false. Quote it: labelMap: {"no": ...}.',
        ),
        ({"true": "positive", "x": "y"}, ["x", "On"], "labelMap renames 'true', which no label of the data is, and th"),
        ({"7": "seven", "x": "y"}, ["x", "007"], "labelMap renames '7', which no label of the data is, and the data h"),
        ({"null": "none", "x": "y"}, ["x", "~"], "labelMap renames 'null', which no label of the data is, and the dat"),
        (
            {"neg": "negative", "pos": "positive"},
            ["bad", "good"],
            "labelMap renames 'neg', 'pos', and no label of the data is among them; it has 'bad', 'good'. Correct the "
            "names in labelMap, or remove it.",
        ),
    ],
)
def test_a_name_in_a_label_map_that_no_label_has_is_refused_where_it_is_a_mistake(
    tmp_path: Path, label_map: dict[str, str], labels: list[str], sentence: str
) -> None:
    with pytest.raises(InvalidSpec) as refused:
        mapped(tmp_path, label_map, *labels)
    assert str(refused.value).startswith(sentence)


def test_a_name_in_a_label_map_that_no_label_has_is_a_warning_where_others_have_one(tmp_path: Path) -> None:
    warnings = mapped(tmp_path, {"pos": "positive", "mixed": "other"}, "pos", "neg").quality.warnings
    assert "labelMap renames 'mixed', and no label of the data is called so." in warnings
    assert not any("labelMap" in each for each in mapped(tmp_path, {"1.0": "a", "0": "b"}, 1.0, 0).quality.warnings)


def test_nan_is_refused_among_numbers_and_is_a_warning_among_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"^a\.csv, line 4 has the label 'nan' and all others are numbers: it is a m"):
        prepare(tmp_path, {"train/a.csv": jsonl("1.0", "2.0", "nan")})
    warnings = prepare(tmp_path, {"train/a.csv": jsonl("zh", "en", "nan")}).quality.warnings
    assert warnings[0].startswith("The label 'nan' may be a missing value that became text")


def test_numbers_are_sorted_as_numbers_and_found_by_either_spelling(tmp_path: Path) -> None:
    rows = jsonl("10.0", "0.5", "1.0")
    assert prepare(tmp_path, {"train/a.csv": rows}).data.labels == ["0.5", "1", "10"]
    made = prepare(tmp_path, {"train/a.csv": rows}, labels=["1.0", "0.5", "10"])
    assert made.data.labels == ["1.0", "0.5", "10"]
    assert labels_by_text(made)["good 2 0"] == "1.0"
