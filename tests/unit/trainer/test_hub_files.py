"""Which files of a data set on a hub are a split: by its card, by the names of its files, by the hub's conversion."""

from typing import Any

import pytest

from luthier_trainer.data.hub_files import Choice, files_of
from luthier_trainer.runtime.errors import InputNotFound, InvalidSpec

pytestmark = pytest.mark.unit

URI = "hf://datasets/luthier/reviews"
OTHERS = ["README.md", ".gitattributes", "picture.png", ".cache/train.csv"]


def chosen(
    names: list[str], split: str = "train", config: str | None = None, card: dict[str, Any] | None = None, **more: Any
) -> list[str]:
    return files_of(Choice(URI, config, split), [*names, *OTHERS], card or {}, **more)


SHARDS = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/extra-00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("names", "split", "wanted"),
    [
        (SHARDS, "train", SHARDS[:2]),
        (SHARDS, "extra", SHARDS[2:]),
        (["train.csv", "test.csv", "dev.csv"], "validation", ["dev.csv"]),
        (["my_train_set.csv", "my_test_set.csv"], "test", ["my_test_set.csv"]),
        (["Train.csv", "VAL.csv"], "validation", ["VAL.csv"]),
        (["train/a.jsonl", "train/b.jsonl", "valid/c.jsonl"], "train", ["train/a.jsonl", "train/b.jsonl"]),
        (["a/training.csv.gz", "a/evaluation.csv.gz"], "test", ["a/evaluation.csv.gz"]),
        # No name says anything: all are for training.
        (["b.csv", "a.csv"], "train", ["a.csv", "b.csv"]),
        # Words within words say nothing.
        (["latest.csv", "constrain.csv"], "train", ["constrain.csv", "latest.csv"]),
        # What cannot be read is left to the hub's conversion.
        (["train.json", "loader.py"], "train", []),
    ],
)
def test_without_a_card_the_names_of_files_tell_their_split(names: list[str], split: str, wanted: list[str]) -> None:
    assert chosen(names, split) == wanted


def configs(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"license": "mit", "configs": list(entries)}


FILES = ["en/train-1.csv", "en/train-2.csv", "en/held/out.csv", "de/train.csv", "de/test.csv", "all.jsonl"]
CARD = configs(
    {
        "config_name": "en",
        "data_files": [{"split": "train", "path": "en/train-*"}, {"split": "test", "path": "**/out.csv"}],
    },
    {"config_name": "de", "data_dir": "de"},
    {"config_name": "all", "data_files": "all.jsonl"},
    {"config_name": "two", "data_files": {"train": ["de/train.csv", "./en/train-1.csv"]}},
)


@pytest.mark.parametrize(
    ("config", "split", "wanted"),
    [
        ("en", "train", ["en/train-1.csv", "en/train-2.csv"]),
        ("en", "test", ["en/held/out.csv"]),
        ("de", "test", ["de/test.csv"]),
        ("all", "train", ["all.jsonl"]),
        ("two", "train", ["de/train.csv", "en/train-1.csv"]),
    ],
)
def test_a_card_names_the_files_of_each_config_and_split(config: str, split: str, wanted: list[str]) -> None:
    assert chosen(FILES, split, config, CARD) == wanted


def test_the_config_that_is_marked_or_called_default_is_read_where_none_is_named() -> None:
    a, b = {"config_name": "a", "data_files": "a.csv"}, {"config_name": "b", "data_files": "b.csv"}
    assert chosen(["a.csv", "b.csv"], card=configs(a, {**b, "default": True})) == ["b.csv"]
    assert chosen(["a.csv", "b.csv"], card=configs(a, {**b, "config_name": "default"})) == ["b.csv"]
    assert chosen(["a.csv", "b.csv"], card=configs(a)) == ["a.csv"]
    with pytest.raises(InvalidSpec, match=r"has several configs: 'a', 'b'\. Name one of them in config\."):
        chosen(["a.csv", "b.csv"], card=configs(a, b))


CONVERTED = ["en/train/0000.parquet", "en/train/0001.parquet", "en/test/0000.parquet", "de/partial-train/0000.parquet"]


def test_what_a_hub_has_converted_is_found_by_config_and_split() -> None:
    assert chosen(CONVERTED, config="en", converted=True) == CONVERTED[:2]
    with pytest.raises(InvalidSpec, match="has several configs: 'de', 'en'"):
        chosen(CONVERTED, converted=True)


def test_a_part_is_never_taken_for_the_whole() -> None:
    with pytest.raises(InputNotFound, match="converted only the first part of split 'train'"):
        chosen(CONVERTED, config="de", converted=True)


@pytest.mark.parametrize(
    ("names", "split", "config", "card", "sentence"),
    [
        (
            ["train.csv"],
            "validation",
            None,
            {},
            "has no split 'validation'; it has: 'train'. Name one of them in split",
        ),
        (["train.csv"], "train", "en", {}, "has no config 'en'; it has: 'default'"),
        (FILES, "train", "fr", CARD, "has no config 'fr'; it has: 'all', 'de', 'en', 'two'"),
        (
            ["train.csv", "train.parquet"],
            "train",
            None,
            {},
            r"in several formats \(.csv, .parquet\); name the files by",
        ),
        (
            ["train_test.csv", "dev.csv"],
            "train",
            None,
            {},
            "train_test.csv of hf://datasets/luthier/reviews may be of split",
        ),
    ],
)
def test_what_is_not_there_or_left_open_is_said_with_what_there_is(
    names: list[str], split: str, config: str | None, card: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((InputNotFound, InvalidSpec), match=sentence):
        chosen(names, split, config, card)


@pytest.mark.parametrize("broken", [{"configs": "x"}, {"configs": ["x"]}, {"configs": None}, {"configs": []}])
def test_a_card_that_names_no_files_counts_as_none(broken: dict[str, Any]) -> None:
    assert chosen(["train.csv"], card=broken) == ["train.csv"]
