"""From texts to probabilities with a real tokenizer and a model that is arithmetic."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from luthier_api.documents import SERVING_DOCUMENT_FILE, ServingDocument
from luthier_api.reasons import Reason
from luthier_api.training import Task
from luthier_serving.classifier import Classifier
from luthier_serving.engines import Ids, Logits
from luthier_serving.errors import LoadError

pytestmark = pytest.mark.unit

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "film", "crash"]


class Arithmetic:
    """Counts good and bad words under the mask. Remembers the shapes it saw; fails on `crash`."""

    name = "arithmetic"

    def __init__(self, pads: bool = False, width: int = 2):
        self.pads = pads
        self.width = width
        self.shapes: list[tuple[int, int]] = []

    def logits(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self.shapes.append(input_ids.shape)
        assert (input_ids[attention_mask == 0] == 0).all()
        if (input_ids == WORDS.index("crash")).any():
            raise RuntimeError("arithmetic error")
        counts = [((input_ids == WORDS.index(word)) * attention_mask).sum(axis=1) for word in ("bad", "good")]
        return np.stack(counts * (self.width // 2), axis=1).astype(np.float32) * 300


def artifact(folder: Path, **changes: object) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    fields = {
        "task": Task.TEXT_CLASSIFICATION,
        "labels": ["negative", "positive"],
        "max_length": 8,
        "lowercase": True,
        "strip_whitespace": True,
        "pad_token_id": 0,
    }
    (folder / SERVING_DOCUMENT_FILE).write_text(ServingDocument.model_validate(fields | changes).to_json())
    return folder


@pytest.mark.parametrize("pads", [False, True])
def test_rows_come_back_in_the_order_of_the_texts_however_they_were_batched(tmp_path: Path, pads: bool) -> None:
    classifier = Classifier(artifact(tmp_path), Arithmetic(pads), max_tokens=16)
    texts = ["film bad", "good", "a film that is GOOD", "bad film", "  Good\n film  "]
    rows = classifier.predict(texts)
    assert [row.probabilities.index(max(row.probabilities)) for row in rows] == [0, 1, 1, 0, 1]
    assert all(sum(row.probabilities) == pytest.approx(1) for row in rows)


def test_on_a_cpu_texts_of_different_lengths_are_not_padded_together(tmp_path: Path) -> None:
    engine = Arithmetic(pads=False)
    classifier = Classifier(artifact(tmp_path), engine, max_tokens=4096)
    engine.shapes.clear()
    classifier.predict(["good film", "bad", "bad film", "good"])
    assert sorted(engine.shapes) == [(2, 3), (2, 4)]


def test_long_texts_are_cut_to_the_length_of_training(tmp_path: Path) -> None:
    engine = Arithmetic()
    Classifier(artifact(tmp_path), engine, max_tokens=4096).predict(["good " * 1000])
    assert engine.shapes[-1] == (1, 8)


def test_a_text_that_breaks_the_model_fails_alone(tmp_path: Path) -> None:
    rows = Classifier(artifact(tmp_path), Arithmetic(), max_tokens=4096).predict(["good", "crash", "bad"])
    assert [row.error is None for row in rows] == [True, False, True]
    assert "arithmetic error" in (rows[1].error or "")


def test_without_lowercasing_case_is_kept(tmp_path: Path) -> None:
    [row] = Classifier(artifact(tmp_path, lowercase=False), Arithmetic(), max_tokens=64).predict(["GOOD"])
    assert row.probabilities == [0.5, 0.5]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / SERVING_DOCUMENT_FILE).unlink(), "has no luthier.json"),
        (lambda folder: (folder / SERVING_DOCUMENT_FILE).write_text('{"task": "chess"}'), "not what this server reads"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json cannot be read"),
    ],
)
def test_an_artifact_with_a_part_missing_or_broken_does_not_load(tmp_path: Path, spoil: object, words: str) -> None:
    folder = artifact(tmp_path)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(LoadError, match=words) as failure:
        Classifier(folder, Arithmetic(), max_tokens=64)
    assert failure.value.reason is Reason.INVALID_MODEL
    assert "\n" not in str(failure.value)


def test_labels_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"4 outputs but luthier\.json names 2 labels"):
        Classifier(artifact(tmp_path), Arithmetic(width=4), max_tokens=64)
