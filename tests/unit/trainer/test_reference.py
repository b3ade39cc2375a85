"""reference.json: what the evaluation split looks like, counted as the server counts."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models

from luthier_api.documents import MOST_LABELS, ReferenceDocument
from luthier_api.training import Task
from luthier_trainer.formats.prepared import Part
from luthier_trainer.publish.reference import reference_of, unknown_token_id
from luthier_trainer.tasks.interface import Predictions
from luthier_trainer.tasks.registry import task_of

pytestmark = pytest.mark.unit

UNKNOWN = 1
TOKENIZER = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": UNKNOWN, "a": 2, "b": 3}, unk_token="[UNK]"))


def reference(task: Task, logits: Any, ids: list[list[int]], labels: list[str], rows: Any = None) -> ReferenceDocument:
    part = Part.of(ids, [0] * len(ids), pa.int32())
    every = np.ones(len(ids), dtype=np.int64) if rows is None else np.array(rows)
    answers = Predictions(np.array(logits, dtype=np.float32), np.zeros(len(ids)), every, 0.0)
    return reference_of(task_of(task), answers, part, labels, TOKENIZER)


def test_labels_confidence_lengths_and_unknown_tokens_of_each_text_are_counted() -> None:
    found = reference(
        Task.TEXT_CLASSIFICATION, [[9, 0], [0, 0.1], [0, 9]], [[2] * 4, [2, 1], [2] * 8], ["negative", "positive"]
    )
    assert (found.label_names, found.unknown_token_id) == (["negative", "positive"], UNKNOWN)
    assert (found.profile.texts, found.profile.labels) == (3, [1, 2, 0])
    assert found.profile.confidence == [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert found.profile.tokens[:5] == [0, 1, 1, 1, 0]
    assert (found.profile.unknown[0], found.profile.unknown[6]) == (2, 1)


def test_texts_of_several_labels_count_each_and_texts_of_none_are_the_rest() -> None:
    found = reference(Task.MULTI_LABEL, [[9, 9], [-9, 9], [-9, -9]], [[2]] * 3, ["a", "b"])
    assert (found.profile.texts, found.profile.labels) == (3, [1, 2, 1])
    assert sum(found.profile.confidence) == 3


@pytest.mark.parametrize(("task", "logits", "rows"), [
    (Task.REGRESSION, [[0.5], [0.7]], None), (Task.TOKEN_CLASSIFICATION, [[9, 0], [0, 9], [9, 0]], [2, 1]),
])  # fmt: skip
def test_where_a_text_has_no_label_only_lengths_and_unknown_tokens_are_counted(
    task: Task, logits: Any, rows: Any
) -> None:
    found = reference(task, logits, [[2, 2, 2], [1]], ["O", "B-PER"], rows)
    assert (found.label_names, found.profile.labels, found.profile.confidence) == ([], [], [])
    assert found.profile.texts == sum(found.profile.tokens) == sum(found.profile.unknown) == 2


def test_of_many_labels_the_most_frequent_ones_have_a_bin() -> None:
    labels = [f"label {number}" for number in range(MOST_LABELS + 5)]
    asked = [number for number in range(3, MOST_LABELS + 5) for _ in range(2)] + [0]
    found = reference(Task.TEXT_CLASSIFICATION, np.eye(len(labels))[asked] * 9, [[2]] * len(asked), labels)
    assert found.label_names == labels[3 : MOST_LABELS + 3]
    assert found.profile.labels == [2] * MOST_LABELS + [5], "the rest share one"


def test_the_same_run_writes_the_same_document() -> None:
    chance = np.random.default_rng(7)
    logits, ids = chance.normal(size=(50, 3)), [[2] * int(size) for size in chance.integers(1, 90, 50)]
    one, other = (reference(Task.TEXT_CLASSIFICATION, logits, ids, ["a", "b", "c"]).to_json() for _ in range(2))
    assert one == other and ReferenceDocument.from_json(one).to_json() == one


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"), 1),
        (models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>"), 1),
        (models.BPE({"a": 0}, []), None),
        (models.Unigram([("a", 0.0), ("<unk>", 0.0)], 1), 1),
        (models.Unigram([("a", 0.0)], None), None),
    ],
    ids=["wordpiece", "bpe", "bpe of bytes", "unigram", "unigram of bytes"],
)
def test_the_unknown_token_of_each_kind_of_tokenizer_is_found(model: Any, expected: int | None) -> None:
    assert unknown_token_id(Tokenizer(model)) == expected
