"""From texts to values with a real tokenizer and models that are arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from luthier_api.artifact_files import REFERENCE_FILE
from luthier_api.documents import SERVING_DOCUMENT_FILE, Profile, ReferenceDocument, ServingDocument
from luthier_api.reasons import Reason
from luthier_api.training import Task
from luthier_serving.answers import Text
from luthier_serving.compute.engines import Batch, Logits
from luthier_serving.compute.model import Model, read_document, read_reference
from luthier_serving.errors import LoadError
from luthier_serving.tasks import OUTPUTS

pytestmark = pytest.mark.unit

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "film", "crash"]


class Arithmetic:
    """Counts good and bad words under the mask. Remembers the shapes it saw; fails on `crash`."""

    weights = "arithmetic"
    batch_invariant = True

    def __init__(self, pads: bool = False, width: int = 2):
        self.pads = pads
        self.width = width
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, batch: Batch) -> Logits:
        input_ids, attention_mask, _ = batch
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
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
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


def model(folder: Path, engine: Any, max_tokens: int = 4096, **changes: object) -> Model:
    artifact(folder, **changes)
    return Model(folder, read_document(folder), engine, version="v1", max_tokens=max_tokens)


@pytest.mark.parametrize("pads", [False, True])
def test_rows_come_back_in_the_order_of_the_texts_however_they_were_batched(tmp_path: Path, pads: bool) -> None:
    texts = ["film bad", "good", "a film that is GOOD", "bad film", "  Good\n film  "]
    rows = model(tmp_path, Arithmetic(pads), max_tokens=16).predict(texts)
    assert [row.values.index(max(row.values)) for row in rows] == [0, 1, 1, 0, 1]
    assert all(sum(row.values) == pytest.approx(1) for row in rows)


def test_on_a_cpu_texts_of_different_lengths_are_not_padded_together(tmp_path: Path) -> None:
    engine = Arithmetic(pads=False)
    loaded = model(tmp_path, engine)
    engine.shapes.clear()
    loaded.predict(["good film", "bad", "bad film", "good"])
    assert sorted(engine.shapes) == [(2, 3), (2, 4)]


@pytest.mark.parametrize(
    ("padding", "shapes", "first"),
    [(None, [(4, 5)], [1, 5, 2, 0, 0]), ("left", [(4, 5)], [0, 0, 1, 5, 2]), ("none", [(1, 4), (1, 5), (2, 3)], [])],
)
def test_a_batch_is_padded_where_the_model_reads_past_it(
    tmp_path: Path, padding: str | None, shapes: list[tuple[int, int]], first: list[int]
) -> None:
    engine = Arithmetic(pads=True)
    loaded = model(tmp_path, engine, other_padding=padding)
    assert loaded.merges_calls == (padding != "none")
    engine.shapes.clear()
    texts = ["bad", "good film good", "good", "good bad"]
    rows = loaded.predict(texts)
    assert sorted(engine.shapes) == shapes
    assert [row.values.index(max(row.values)) for row in rows] == [0, 1, 1, 0]
    batch = loaded._tokenization.collate(loaded._tokenization.encode(["bad", "good film good"]))
    assert padding == "none" or batch.input_ids[0].tolist() == first
    assert (batch.attention_mask[0] == (batch.input_ids[0] != 0)).all()


def test_an_engine_whose_texts_influence_each_other_is_given_them_one_by_one(tmp_path: Path) -> None:
    engine = Arithmetic(pads=True)
    engine.batch_invariant = False
    rows = model(tmp_path, engine).predict(["good film", "bad", "bad film", "good"])
    assert {shape[0] for shape in engine.shapes} == {1}
    assert [row.values.index(max(row.values)) for row in rows] == [1, 0, 0, 1]


def test_long_texts_are_cut_to_the_length_of_training(tmp_path: Path) -> None:
    engine = Arithmetic()
    model(tmp_path, engine).predict(["good " * 1000])
    assert engine.shapes[-1] == (1, 8)


def test_a_text_that_breaks_the_model_fails_alone(tmp_path: Path) -> None:
    rows = model(tmp_path, Arithmetic()).predict(["good", "crash", "bad"])
    assert [row.error is None for row in rows] == [True, False, True]
    assert "arithmetic error" in (rows[1].error or "")


def test_without_lowercasing_case_is_kept(tmp_path: Path) -> None:
    [row] = model(tmp_path, Arithmetic(), lowercase=False).predict(["GOOD"])
    assert row.values == [0.5, 0.5]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / SERVING_DOCUMENT_FILE).unlink(), "has no luthier.json"),
        (
            lambda folder: (folder / SERVING_DOCUMENT_FILE).write_text('{"task": "chess"}'),
            "This server cannot read the artifact's luthier",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json cannot be read"),
    ],
)
def test_an_artifact_with_a_part_missing_or_broken_does_not_load(tmp_path: Path, spoil: object, words: str) -> None:
    folder = artifact(tmp_path)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(LoadError, match=words) as failure:
        Model(folder, read_document(folder), Arithmetic(), version="v1", max_tokens=64)
    assert failure.value.reason is Reason.INVALID_MODEL
    assert "\n" not in str(failure.value)


def test_labels_that_do_not_match_the_model_do_not_load(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"4 outputs, but luthier\.json has 2 labels"):
        model(tmp_path, Arithmetic(width=4))


class Recorder:
    """Gives the same logits to every text, or token, and remembers what it was given."""

    weights = "recorder"
    pads = batch_invariant = True

    def __init__(self, *logits: float, per_token: bool = False):
        self.answer = np.array(logits, dtype=np.float32)
        self.per_token = per_token
        self.batches: list[Batch] = []

    def logits(self, batch: Batch) -> Logits:
        self.batches.append(batch)
        shape = batch.input_ids.shape if self.per_token else batch.input_ids.shape[:1]
        return np.broadcast_to(self.answer, (*shape, len(self.answer)))


def test_a_pair_reaches_the_engine_as_one_row_with_the_tokenizers_types(tmp_path: Path) -> None:
    engine = Recorder(1, 2)
    pairs: list[Text] = [("good film", "bad"), ("bad", "film")]
    rows = model(tmp_path, engine, pairs=True).predict(pairs)
    assert [row.error for row in rows] == [None, None]
    batch = engine.batches[-1]
    assert batch.input_ids.tolist() == [[1, 4, 6, 2, 5, 2], [1, 5, 2, 6, 2, 0]]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]]
    assert batch.attention_mask.tolist() == [[1] * 6, [1, 1, 1, 1, 1, 0]]


def test_a_model_of_single_texts_is_given_no_token_types(tmp_path: Path) -> None:
    engine = Recorder(1, 2)
    model(tmp_path, engine).predict(["good film"])
    assert all(batch.token_type_ids is None for batch in engine.batches)


@pytest.mark.parametrize(
    ("pairs", "words"), [(True, "reads pairs of texts; send"), (False, "reads single texts; leave out text_pair")]
)
def test_what_the_model_does_not_read_is_an_error_and_its_neighbours_are_answered(
    tmp_path: Path, pairs: bool, words: str
) -> None:
    texts: list[Text] = ["good", ("good", "film"), "bad", ("bad", "film")]
    rows = model(tmp_path, Recorder(1, 2), pairs=pairs).predict(texts)
    assert [row.invalid_input for row in rows] == [isinstance(text, tuple) != pairs for text in texts]
    assert all(words in str(row.error) if row.invalid_input else row.values and row.error is None for row in rows)


def test_an_output_per_token_where_the_task_is_per_text_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"outputs per token, but its task in luthier\.json is text-class"):
        model(tmp_path, Recorder(1, 2, per_token=True))


def test_an_output_that_is_not_finite_is_a_failure_of_that_text_and_no_answer(tmp_path: Path) -> None:
    engine = Recorder(1, 2)
    loaded = model(tmp_path, engine)
    engine.answer[1] = np.nan
    [row] = loaded.predict(["good"])
    assert "not finite" in str(row.error) and not row.invalid_input


class Names(Recorder):
    """Knows one name."""

    def logits(self, batch: Batch) -> Logits:
        logits = np.zeros((*batch.input_ids.shape, 3), dtype=np.float32)
        logits[..., 0] = 5
        for column, word in ((1, "good"), (2, "film")):
            logits[batch.input_ids == WORDS.index(word), column] = 9
        return logits


@pytest.mark.parametrize("strip_whitespace", [True, False])
def test_entities_are_found_where_the_caller_wrote_them_however_the_text_was_cleaned(
    tmp_path: Path, strip_whitespace: bool
) -> None:
    changes = {"task": Task.TOKEN_CLASSIFICATION, "labels": ["O", "B-TITLE", "I-TITLE"], "max_length": 32}
    loaded = model(tmp_path, Names(per_token=True), **changes, strip_whitespace=strip_whitespace)
    texts = [" \tBAD   Good \n FILM!  bad", "Good", "a"]
    output = OUTPUTS[Task.TOKEN_CLASSIFICATION]
    spans = [output.scored(row, loaded.info) for row in loaded.predict(texts)]
    found = [[text[span.start : span.end] for span in row] for text, row in zip(texts, spans, strict=True)]
    assert found == [["Good \n FILM"], ["Good"], []]
    assert spans[0][0].score == pytest.approx(np.e**9 / (np.e**9 + np.e**5 + 1), abs=1e-6)


def test_a_row_says_how_much_of_its_text_was_cut_and_keeps_the_logits(tmp_path: Path) -> None:
    loaded = model(tmp_path, Arithmetic())
    short, long = loaded.predict(["good film", "film " * 10 + "good"])
    assert (short.cut_tokens, long.cut_tokens) == (0, 5)
    assert loaded.info.max_tokens == 8
    assert np.frombuffer(short.logits, dtype=np.float32).tolist() == [0.0, 300.0]


def test_each_text_says_how_many_tokens_it_has_and_how_many_are_unknown_where_there_is_a_reference(
    tmp_path: Path,
) -> None:
    texts = ["good film", "quite bad", "never seen"]
    plain = model(tmp_path, Arithmetic())
    assert plain.reference is None and [(row.tokens, row.unknown) for row in plain.predict(texts)] == [(4, 0)] * 3
    reference = ReferenceDocument(unknown_token_id=WORDS.index("[UNK]"), profile=Profile())
    (tmp_path / REFERENCE_FILE).write_text(reference.to_json())
    assert read_reference(tmp_path) == reference
    told = Model(tmp_path, read_document(tmp_path), Arithmetic(), version="v1", max_tokens=4096, reference=reference)
    assert [(row.tokens, row.unknown) for row in told.predict(texts)] == [(4, 0), (4, 1), (4, 2)]
    assert [row.values for row in told.predict(texts)] == [row.values for row in plain.predict(texts)]


def test_a_reference_that_this_server_cannot_read_is_as_none(tmp_path: Path) -> None:
    for content in ("{", '{"profile": {}, "ofALaterRelease": 1}'):
        (tmp_path / REFERENCE_FILE).write_text(content)
        assert read_reference(tmp_path) is None


def test_a_model_says_what_its_last_call_took(tmp_path: Path) -> None:
    loaded = model(tmp_path, Arithmetic())
    loaded.predict(["good film", "bad"])
    work = loaded.work
    assert work is not None and work.tokens == 7 and work.started_ns > 0
    assert work.tokenize_s > 0 and work.compute_s > 0
