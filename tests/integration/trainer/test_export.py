"""Exports: the same numbers in another form, or not shipped."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression
from transformers import PreTrainedModel

from luthier_api.training import Task
from luthier_dev import samples
from luthier_trainer.engine.collate import Collator, TokenFormat
from luthier_trainer.export import exporter as export
from luthier_trainer.export.exporter import export_int8, export_onnx
from luthier_trainer.export.int8 import Judge, select
from luthier_trainer.export.onnx_model import sample_by_length
from luthier_trainer.export.outcome import ExportOutcome
from luthier_trainer.formats.prepared import Part
from luthier_trainer.runtime.errors import ExportFailed
from luthier_trainer.tasks.interface import IGNORED, Predictions
from luthier_trainer.tasks.registry import task_of

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]
LABELS = ["O", "B-x", "I-x"]
LENGTHS = [3, 4, 4, 9, 9, 12, 17, 24, 24, 30]


def model_of(folder: Path, auto_class: str = "AutoModelForSequenceClassification") -> PreTrainedModel:
    """Weights large enough that every input matters."""
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, auto_class).from_pretrained(folder, num_labels=len(LABELS))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight *= 5
    return model.eval()  # type: ignore[no-untyped-call]


def part_of(task: Task, *, pairs: bool = False) -> Part:
    random = np.random.default_rng(0)
    ids = [[2, *random.integers(5, 300, length - 2).tolist(), 3] for length in LENGTHS]
    module = task_of(task)
    targets: list[Any] = [index % len(LABELS) for index in range(len(ids))]
    if module.per_token:
        targets = [[IGNORED, *random.integers(0, 3, length - 2).tolist(), IGNORED] for length in LENGTHS]
    starts = [length // 2 for length in LENGTHS] if pairs else None
    return Part.of(ids, targets, module.target_type, second_starts=starts)


def collator_of(task: Task, *, pairs: bool = False, token_types: bool = False) -> Collator:
    return Collator(part_of(task, pairs=pairs), task_of(task), len(LABELS), TokenFormat(0, token_types=token_types))


def run(path: Path, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {name: np.asarray(value, dtype=np.int64) for name, value in inputs.items()})[0]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_any_batch_of_any_length_computes_the_same(tiny_models: Models, architecture: str, tmp_path: Path) -> None:
    model, path = model_of(tiny_models(architecture)), tmp_path / "model.onnx"
    outcome = export_onnx(model, path, collator_of(Task.TEXT_CLASSIFICATION), threads=1)
    assert outcome.difference is not None and outcome.difference < 1e-4
    assert (outcome.texts, outcome.size_bytes) == (len(LENGTHS), path.stat().st_size)
    for texts, length in ((1, 5), (3, 31)):
        ids = np.random.default_rng(1).integers(5, 300, (texts, length))
        mask = np.ones_like(ids)
        mask[0, 4:] = 0
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
        assert wanted.abs().max() > 0.05
        assert np.allclose(run(path, input_ids=ids, attention_mask=mask), wanted, atol=1e-4)


def test_of_pairs_the_types_of_tokens_are_an_input(tiny_models: Models, tmp_path: Path) -> None:
    model, path = model_of(tiny_models("bert")), tmp_path / "model.onnx"
    collator = collator_of(Task.TEXT_CLASSIFICATION, pairs=True, token_types=True)
    assert (export_onnx(model, path, collator, threads=1).difference or 0) < 1e-4
    ids = np.random.default_rng(1).integers(5, 300, (2, 10))
    types = [[0] * 5 + [1] * 5, [0] * 10]
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(ids), token_type_ids=torch.tensor(types)).logits
        without = model(input_ids=torch.tensor(ids)).logits
    assert np.allclose(
        run(path, input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=types), wanted, atol=1e-4
    )
    assert not np.allclose(without[0], wanted[0], atol=1e-2)


def test_of_words_every_token_has_its_logits(tiny_models: Models, tmp_path: Path) -> None:
    model = model_of(tiny_models("bert"), "AutoModelForTokenClassification")
    collator, path = collator_of(Task.TOKEN_CLASSIFICATION), tmp_path / "model.onnx"
    assert (export_onnx(model, path, collator, threads=1).difference or 0) < 1e-4
    ids = np.random.default_rng(1).integers(5, 300, (2, 10))
    assert run(path, input_ids=ids, attention_mask=np.ones_like(ids)).shape == (2, 10, len(LABELS))


def test_a_file_that_computes_something_else_ends_the_run(
    tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, write = model_of(tiny_models("bert")), export._write

    def write_another(_: PreTrainedModel, *arguments: Any) -> None:
        another = model_of(tiny_models("bert"))
        with torch.no_grad():
            another.get_parameter("classifier.bias")[0] += 0.002
        write(another, *arguments)

    monkeypatch.setattr(export, "_write", write_another)
    with pytest.raises(ExportFailed, match=r"differ by 0\.002 from the trained model's, more than 0\.001"):
        export_onnx(model, tmp_path / "model.onnx", collator_of(Task.TEXT_CLASSIFICATION), threads=1)


def test_what_cannot_be_written_ends_the_run_with_the_reason(
    tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        # As torch's exporter has it.
        cause = RuntimeError("\x1b[1mno such operator\x1b[0m\nand a long trace")
        raise ValueError(
            "Failed. \x1b[96mThis is step 2/3\x1b[0m of exporting. Next steps:\n- Create an issue"
        ) from cause

    monkeypatch.setattr(export, "_write", refuse)
    with pytest.raises(ExportFailed, match=r"written as ONNX: no such operator\. Leave onnx and onnx-int8 out"):
        export_onnx(
            model_of(tiny_models("bert")), tmp_path / "m.onnx", collator_of(Task.TEXT_CLASSIFICATION), threads=1
        )


@pytest.mark.parametrize(
    ("lengths", "count", "tokens", "expected"),
    [
        ([5, 9, 7], 10, 1000, [5, 7, 9]),
        ([5] * 50 + [9], 3, 1000, [5, 5, 9]),
        # 100 tokens are worth 10 texts of 10.
        ([10] * 500, 100, 100, [10] * 10),
        # Whatever the budget, the longest and the shortest.
        ([400, 500, 300], 100, 100, [300, 500]),
    ],
)
def test_texts_to_try_are_few_and_of_all_lengths(
    lengths: list[int], count: int, tokens: int, expected: list[int]
) -> None:
    array = np.array(lengths, dtype=np.int32)
    assert array[sample_by_length(array, count, tokens)].tolist() == expected


def test_predictions_of_some_texts_are_selected_with_all_their_tokens() -> None:
    collator, task = collator_of(Task.TOKEN_CLASSIFICATION), task_of(Task.TOKEN_CLASSIFICATION)
    rows = int(collator.rows.sum())
    logits = np.zeros((rows, 3), dtype=np.float32)
    logits[:, 0] = np.repeat(np.arange(len(LENGTHS)), collator.rows)
    targets = task.dense_targets(collator.part, 3)
    found = select(Predictions(logits, targets, collator.rows, 0.0), collator, np.array([1, 8]), task)
    # The longer text first, as batches have it.
    assert found.rows_per_text.tolist() == [22, 2]
    assert found.logits[:, 0].tolist() == [8] * 22 + [1] * 2
    assert found.targets.tolist() == [t for index in (8, 1) for t in collator.part.target(index) if t != IGNORED]


@pytest.fixture(scope="module")
def reviewer() -> tuple[PreTrainedModel, Collator, Judge, Predictions]:
    """A real model of 6 layers whose head tells real reviews apart, and what it says of those held out."""
    from tokenizers import Tokenizer

    folder, task = samples.base_model(), task_of(Task.TEXT_CLASSIFICATION)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    tokenizer.no_padding()

    def read(path: Path, count: int) -> Part:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))[:count]
        targets = [int(row["label"] == "positive") for row in rows]
        return Part.of([tokenizer.encode(row["text"]).ids for row in rows], targets, task.target_type)

    train, held_out = (
        Collator(read(path, count), task, 2, TokenFormat(0))
        for path, count in ((samples.reviews_csv().train, 500), (samples.reviews_csv().eval, 400))
    )
    model = transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    head = LogisticRegression(C=10, max_iter=500).fit(pooled(model, train), task.dense_targets(train.part, 2))
    with torch.no_grad():
        for sign, row in ((-0.5, 0), (0.5, 1)):
            model.classifier.weight[row] = sign * torch.tensor(head.coef_[0])
            model.classifier.bias[row] = float(sign * head.intercept_[0])
        logits = model.classifier(torch.tensor(pooled(model, held_out))).numpy()
    trained = Predictions(logits, task.dense_targets(held_out.part, 2), held_out.rows, 0.0)
    return model, held_out, Judge(task, ["negative", "positive"], "accuracy", greater_is_better=True), trained


def pooled(model: Any, collator: Collator) -> Any:
    """What the head reads of each text, in the order of the part."""
    found = np.zeros((len(collator.part), model.config.hidden_size), dtype=np.float32)
    with torch.no_grad():
        for batch in export.padded_batches(collator, np.arange(len(collator.part)), 8):
            inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            found[batch.indices] = model.bert(**inputs).pooler_output.numpy()
    return found


@pytest.fixture(scope="module")
def int8(reviewer: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ExportOutcome]:
    model, collator, judge, trained = reviewer
    folder = tmp_path_factory.mktemp("int8")
    source, path = folder / "model.onnx", folder / "model.int8.onnx"
    assert (export_onnx(model, source, collator, threads=1).difference or 0) < 1e-3
    return source, path, export_int8(source, path, collator, judge, trained, 0.02, threads=1)


def test_int8_of_a_real_model_is_a_quarter_of_the_size_and_judges_as_well(
    reviewer: Any, int8: tuple[Path, Path, ExportOutcome]
) -> None:
    _, collator, judge, trained = reviewer
    source, path, outcome = int8
    assert judge.task.measure(trained, judge.labels)["accuracy"] > 0.75
    assert outcome.shipped and outcome.loss is not None and outcome.loss <= 0.02
    assert outcome.texts == len(collator.part) == 400
    assert outcome.size_bytes == path.stat().st_size < source.stat().st_size / 3.5
    assert outcome.speedup and outcome.speedup > 0
    right = judge.task.measure(trained, judge.labels)["accuracy"]
    assert outcome.metrics["eval_accuracy"] == pytest.approx(right - outcome.loss)
    # Really another model, and nothing of the work is left beside it.
    assert not np.allclose(
        *(run(each, input_ids=[[101, 2204, 102]], attention_mask=[[1] * 3]) for each in (source, path))
    )
    assert sorted(each.name for each in path.parent.iterdir()) == ["model.int8.onnx", "model.onnx"]


def test_int8_that_judges_worse_is_not_shipped_and_says_why(
    reviewer: Any, int8: tuple[Path, Path, ExportOutcome], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, collator, judge, trained = reviewer
    # A model that is always right: no int8 of the real one is as good.
    right = np.eye(2, dtype=np.float32)[trained.targets]
    path = tmp_path / "model.int8.onnx"
    perfect = Predictions(right, trained.targets, trained.rows_per_text, 0.0)
    outcome = export_int8(int8[0], path, collator, judge, perfect, 0.01, threads=1)
    assert not outcome.shipped and outcome.loss is not None and outcome.loss > 0.01
    assert outcome.message and "worse by" in outcome.message and "maxInt8Loss allows (0.01)" in outcome.message
    assert outcome.message in caplog.text
    assert not path.exists()


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_worse_is_less_of_a_score_and_more_of_an_error(metric: str) -> None:
    judge = Judge(task_of(Task.TEXT_CLASSIFICATION), ["a", "b"], metric, greater_is_better=metric != "loss")
    rows = np.ones(4, dtype=np.int64)
    targets = np.array([0, 1, 0, 1])
    good = Predictions(np.eye(2)[targets], targets, rows, 0.2)
    bad = Predictions(np.eye(2)[1 - targets], targets, rows, 0.9)
    assert judge.loss(good, bad) == pytest.approx(0.7 if metric == "loss" else 1.0)
    assert judge.loss(bad, good) < 0


def test_int8_that_cannot_be_made_is_not_shipped_and_the_run_goes_on(
    tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(source: Path, target: Path) -> None:
        target.write_bytes(b"half a model")
        raise RuntimeError("no memory")

    monkeypatch.setattr(export, "quantize", break_off)
    task = task_of(Task.TEXT_CLASSIFICATION)
    judge, path = Judge(task, LABELS, "accuracy", greater_is_better=True), tmp_path / "model.int8.onnx"
    nothing = Predictions(np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=np.int64), 0.0)
    outcome = export_int8(
        tmp_path / "model.onnx", path, collator_of(Task.TEXT_CLASSIFICATION), judge, nothing, 0.01, threads=1
    )
    assert not outcome.shipped
    assert outcome.message == "The model cannot be quantized to int8: no memory."
    assert not path.exists()


def test_int8_alone_leaves_no_fp32_in_the_artifact(bench: Any, tiny_models: Models, reviews: Any) -> None:
    document = bench.document(
        model=bench.put_folder("base", tiny_models("distilbert")),
        train=bench.put_csv("train.csv", reviews[:120]),
        export=["onnx-int8"],
        evaluation={"maxInt8Loss": "1"},
    )
    answer = bench.run("run", document)
    assert answer.result.published, answer.log
    folder = f"registry/sentiment/versions/{answer.result.published.version}"
    assert [name for name in bench.keys(folder) if ".onnx" in name] == [f"{folder}/model.int8.onnx"]
    bucket, _, root = bench.uri.removeprefix("s3://").partition("/")
    metrics = bench.client.get_object(Bucket=bucket, Key=f"{root}/{folder}/metrics.json")["Body"].read()
    exports = json.loads(metrics)["exports"]
    assert [(each["format"], each["shipped"]) for each in exports] == [("safetensors", True), ("onnx-int8", True)]
    assert exports[1]["texts"] == 12 and exports[1]["size_bytes"] and exports[1]["speedup"]

    # A gate between what the two forms score is judged by the one that a server without a GPU loads.
    fp32, int8 = (each["metrics"]["eval_loss"] for each in exports)
    assert fp32 == json.loads(metrics)["metrics"]["eval_loss"] != int8
    gate = {
        "metric": "eval_loss",
        "operator": "LTE" if fp32 < int8 else "GTE",
        "threshold": f"{(fp32 + int8) / 2:.12f}",
    }
    document["spec"]["evaluation"] = document["spec"].get("evaluation", {}) | {"gates": [gate]}
    gated = bench.run("run", document).result.published
    assert gated and not gated.promotable
    assert gated.message and "judged on 12 texts with model.int8.onnx" in gated.message
