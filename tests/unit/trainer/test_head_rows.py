"""What becomes of the head of a base model that is a classifier already: its rows go by their names."""

import json
from pathlib import Path

import pytest

from luthier_trainer.models.base_model import BaseModel
from luthier_trainer.models.head_rows import head_labels, head_note, rows_of

pytestmark = pytest.mark.unit

CLASSIFIER = "AutoModelForSequenceClassification"


@pytest.mark.parametrize(
    ("labels", "found", "rows"),
    [
        (["a", "b", "c"], ["a", "b", "c"], [0, 1, 2]),
        (["a", "b", "c"], ["c", "a", "b"], [1, 2, 0]),
        (["negative", "positive"], ["POSITIVE", "NEGATIVE"], [1, 0]),
        # Two labels that differ by their case alone are told apart by it.
        (["us", "US"], ["US", "us"], [1, 0]),
        (["a", "b"], ["a", "c"], None),
        (["a", "b"], ["a", "b", "c"], None),
        (["a", "b"], ["a", "a"], None),
        (["negative", "positive"], ["LABEL_0", "LABEL_1"], None),
    ],
)
def test_rows_are_found_by_the_names_of_their_labels(labels: list[str], found: list[str], rows: list[int]) -> None:
    assert rows_of(labels, found) == rows


def base(folder: Path, **config: object) -> BaseModel:
    (folder / "config.json").write_text(json.dumps(config))
    return BaseModel(folder, "bert", 0, "")


def test_what_becomes_of_a_head_is_said(tmp_path: Path) -> None:
    names = {str(place): f"topic {place}" for place in (*range(9, -1, -1), 10)}
    topics = base(tmp_path, architectures=["BertForSequenceClassification"], id2label=names)
    assert head_labels(topics, CLASSIFIER) == [f"topic {place}" for place in range(11)]

    def note(labels: list[str], *, numbers: bool = False) -> str | None:
        return head_note(topics, "hf://a/b", CLASSIFIER, labels, numbers=numbers)

    other = note(["good", "bad"])
    assert other is not None and other.startswith("The base model hf://a/b is a classifier of 'topic 0', 'topic 1'")
    assert other.endswith("and this run has 'good', 'bad'; its head is not used, and a new one is trained.")
    assert "rows in the order of this run's labels" in (note([f"topic {place}" for place in range(10, -1, -1)]) or "")
    assert note([f"topic {place}" for place in range(11)]) is None


def test_a_base_model_without_a_head_of_this_kind_has_no_labels(tmp_path: Path) -> None:
    names = {"0": "LABEL_0", "1": "LABEL_1"}
    assert head_labels(base(tmp_path, architectures=["BertForMaskedLM"], id2label=names), CLASSIFIER) == []
    assert head_labels(base(tmp_path), CLASSIFIER) == []
    tagger = base(tmp_path, architectures=["BertForTokenClassification"], id2label=names)
    assert head_labels(tagger, CLASSIFIER) == []
    assert head_labels(tagger, "AutoModelForTokenClassification") == ["LABEL_0", "LABEL_1"]


def test_a_head_of_one_number_is_kept_whatever_its_name(tmp_path: Path) -> None:
    stars = base(tmp_path, architectures=["BertForSequenceClassification"], id2label={"0": "stars"})
    assert head_note(stars, "hf://a/b", CLASSIFIER, ["rating"], numbers=True) is None
