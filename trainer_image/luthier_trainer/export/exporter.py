"""Writes the trained model in the requested formats besides safetensors, and checks each on real texts.

    model.onnx         fp32; its logits must be the model's, or the run fails: it is the same model in another form
    model.int8.onnx    a smaller and faster model; ships only if its metric is the model's, up to evaluation.maxInt8Loss

Memory is bounded by the model, not by the data: both are tried on a few held-out texts of all lengths. Works on one
process; ranks other than the first export nothing.
"""

import logging
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from luthier_api.artifact_files import INT8_ONNX_FILE, ONNX_FILE
from luthier_api.documents import Padding
from luthier_api.training import ExportFormat, TrainingSpec
from luthier_trainer.engine.collate import Collator, MicroBatch, TokenFormat, token_format
from luthier_trainer.engine.schedule import Indices
from luthier_trainer.export.int8 import Judge, predict, quantize, select
from luthier_trainer.export.onnx_model import (
    ONE_FILE_BYTES,
    OnnxModel,
    cause_of,
    files_of,
    padded_batches,
    sample_by_length,
    size_of,
)
from luthier_trainer.export.outcome import ExportOutcome
from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.runtime.errors import ExportFailed
from luthier_trainer.spec.hyperparameters import best_metric, greater_is_better
from luthier_trainer.tasks.interface import Predictions, TaskModule

log = logging.getLogger(__name__)

_ADVICE = "Leave onnx and onnx-int8 out of export; engine torch serves the model."

# Attention in its modern form needs 14, layer normalization as one operator 17; 18 is the exporter's own.
OPSET = 18
# Of a logit, relative where it is larger than 1.
TOLERANCE = 1e-3
PARITY_TEXTS, PARITY_TOKENS, PARITY_BATCH = 64, 16_384, 8
# What int8 is judged on, at most; a run's GPU waits meanwhile.
JUDGED_TEXTS, JUDGED_TOKENS = 2_000, 200_000


def export_model(
    model: PreTrainedModel,
    folder: Path,
    spec: TrainingSpec,
    task: TaskModule,
    prepared: PreparedFolder,
    trained: Predictions,
    *,
    padding: Padding,
    threads: int,
) -> list[ExportOutcome]:
    """Write what spec.export asks for beside safetensors.

    Args:
        model: what was trained.
        folder: where to write.
        spec: formats, limits and the metric to judge by.
        task: of the model.
        prepared: real texts.
        trained: what the model says of the held-out ones.
        padding: where its batches may be filled up.
        threads: CPUs to use.

    Raises:
        ExportFailed: if ONNX in fp32 cannot be written, or computes something else.
    """
    model.cpu().eval()  # type: ignore[no-untyped-call]
    folder.mkdir(parents=True, exist_ok=True)
    scores = _scores(task, "eval_", trained, prepared.data.labels)
    outcomes = [ExportOutcome(ExportFormat.SAFETENSORS, shipped=True, metrics=scores)]
    if not {ExportFormat.ONNX, ExportFormat.ONNX_INT8} & set(spec.export):
        return outcomes
    collator = held_out_collator(model, task, prepared).padded(padding)
    path = folder / ONNX_FILE
    outcomes.append(replace(export_onnx(model, path, collator, threads=threads), metrics=scores))
    if ExportFormat.ONNX_INT8 in spec.export:
        metric = best_metric(spec.hyperparameters, task).removeprefix("eval_")
        judge = Judge(task, prepared.data.labels, metric, greater_is_better(spec.hyperparameters, task))
        limit = float(spec.evaluation.max_int8_loss)
        outcome = export_int8(path, folder / INT8_ONNX_FILE, collator, judge, trained, limit, threads=threads)
        if outcome.shipped and prepared.test and any(gate.metric.startswith("test_") for gate in spec.evaluation.gates):
            other = collator.of(prepared.test)
            found = predict(OnnxModel(folder / INT8_ONNX_FILE, threads), other, _judged(other), task)
            tested = _scores(task, "test_", found, prepared.data.labels)
            outcome = replace(outcome, metrics=outcome.metrics | tested)
        outcomes.append(outcome)
    if ExportFormat.ONNX not in spec.export:
        _remove(path)
        outcomes = [outcome for outcome in outcomes if outcome.format is not ExportFormat.ONNX]
    return outcomes


def export_onnx(model: PreTrainedModel, path: Path, collator: Collator, *, threads: int) -> ExportOutcome:
    """Write the model in fp32 and compare its logits with the model's.

    Raises:
        ExportFailed: if the model cannot be exported, or computes something else.
    """
    chosen = sample_by_length(collator.part.lengths, PARITY_TEXTS, PARITY_TOKENS)
    tried = padded_batches(collator, chosen, PARITY_BATCH)
    try:
        _write_somehow(model, path, _example(tried[0]))
        difference = _largest_difference(model, OnnxModel(path, threads), tried)
    except Exception as error:  # the exporter and the runtime raise whatever goes wrong inside them
        raise ExportFailed(
            f"The model, of type {model.config.model_type}, cannot be written as ONNX: {cause_of(error)}. {_ADVICE}"
        ) from error
    if not difference <= TOLERANCE:
        raise ExportFailed(
            f"The ONNX model's logits differ by {difference:.2g} from the trained model's, more than {TOLERANCE:g}. "
            f"{_ADVICE}"
        )
    size = size_of(files_of(path))
    return ExportOutcome(ExportFormat.ONNX, True, difference=difference, texts=len(chosen), size_bytes=size)


def export_int8(
    source: Path,
    path: Path,
    collator: Collator,
    judge: Judge,
    trained: Predictions,
    limit: float,
    *,
    threads: int,
) -> ExportOutcome:
    """Write the int8 form of an exported model, and remove it again if it judges worse by more than the limit.

    Args:
        source: the model in fp32.
        path: where to write.
        collator: of the held-out texts.
        judge: says how much worse it is.
        trained: what the model says of the held-out texts.
        limit: how much worse it may be.
        threads: CPUs to use.

    Returns:
        The outcome; a failure is no failure of the run, whose model is there in other formats.
    """
    chosen = _judged(collator)
    try:
        quantize(source, path)
        found = predict(OnnxModel(path, threads), collator, chosen, judge.task)
        speedup = _speedup(source, path, collator, threads)
    except Exception as error:  # as above; what was written must not be shipped whatever went wrong
        _remove(path)
        return _not_shipped(f"The model cannot be quantized to int8: {cause_of(error)}.", None, len(chosen))
    loss = judge.loss(select(trained, collator, chosen, judge.task), found)
    size = size_of(files_of(path))
    if not loss <= limit:
        _remove(path)
        return _not_shipped(
            f"The int8 model is worse by {loss:.4g} in {judge.metric} on {len(chosen)} held-out texts, more than "
            f"evaluation.maxInt8Loss allows ({limit:g}).",
            loss,
            len(chosen),
        )
    log.info("int8: %s worse by %.4f on %d texts, %.1f times as fast", judge.metric, loss, len(chosen), speedup)
    return ExportOutcome(
        ExportFormat.ONNX_INT8,
        True,
        loss=loss,
        texts=len(chosen),
        size_bytes=size,
        speedup=round(speedup, 2),
        metrics=_scores(judge.task, "eval_", found, judge.labels),
    )


def _judged(collator: Collator) -> Indices:
    return sample_by_length(collator.part.lengths, JUDGED_TEXTS, JUDGED_TOKENS)


def _scores(task: TaskModule, prefix: str, predictions: Predictions, labels: list[str]) -> dict[str, float]:
    measured = {"loss": predictions.loss, **task.measure(predictions, labels)}
    return {f"{prefix}{name}": float(value) for name, value in measured.items()}


def held_out_collator(model: PreTrainedModel, task: TaskModule, prepared: PreparedFolder) -> Collator:
    """Return what makes batches of the held-out texts with the inputs that the exported model has."""
    # Single texts have one type of tokens, which the model fills in: one input less for the caller.
    tokens = token_format(model, prepared.data.pad_token_id)
    types = tokens.token_types and prepared.data.pairs
    return Collator(prepared.held_out, task, len(prepared.data.labels), TokenFormat(tokens.pad_token_id, 0, types))


class _Logits(torch.nn.Module):
    """The model with tensors in and one tensor out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits


def _inputs(batch: MicroBatch) -> dict[str, torch.Tensor]:
    assert batch.attention_mask is not None
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    return inputs if batch.token_type_ids is None else inputs | {"token_type_ids": batch.token_type_ids}


def _example(batch: MicroBatch) -> dict[str, torch.Tensor]:
    """Return two texts of more than one token: sizes of 0 and 1 would be taken for constants."""
    return {name: tensor[:1].expand(2, -1).contiguous() for name, tensor in _inputs(batch).items()}


def _write_somehow(model: PreTrainedModel, path: Path, example: dict[str, torch.Tensor]) -> None:
    """Write the model, with attention spelled out where the exporter does not take torch's own function (T5)."""
    before = model.config._attn_implementation
    try:
        _write(model, path, example)
    except Exception:
        if before == "eager":
            raise
        model.set_attn_implementation("eager")
        try:
            _write(model, path, example)
        finally:
            model.set_attn_implementation(before)


def _write(model: PreTrainedModel, path: Path, example: dict[str, torch.Tensor]) -> None:
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    for noisy in ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(model).eval(),
            kwargs=example,
            f=str(path),
            dynamo=True,
            dynamic_shapes={name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in example},
            input_names=list(example),
            output_names=["logits"],
            opset_version=OPSET,
            external_data=size > ONE_FILE_BYTES,
            verbose=False,
        )


def _largest_difference(model: PreTrainedModel, exported: OnnxModel, tried: list[MicroBatch]) -> float:
    largest = 0.0
    with torch.no_grad():
        for batch in tried:
            wanted = model(**_inputs(batch)).logits
            wanted = wanted if batch.rows is None else wanted.flatten(0, 1)[batch.rows]
            # Of logits as large as hundreds, such as a regression's, fp32 has fewer places behind the point.
            size = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
            largest = max(largest, float(np.abs(exported.logits(batch) - wanted.numpy()).max(initial=0.0)) / size)
    return largest


def _speedup(source: Path, path: Path, collator: Collator, threads: int) -> float:
    """Return how many times as fast as the first file the second one computes the same texts, one at a time."""
    tried = padded_batches(collator, sample_by_length(collator.part.lengths, PARITY_TEXTS, PARITY_TOKENS), 1)
    seconds = []
    for each in (source, path):
        model = OnnxModel(each, threads)
        for batch in tried:
            model.logits(batch)
        seconds.append(model.seconds)
    return seconds[0] / seconds[1]


def _not_shipped(message: str, loss: float | None, texts: int) -> ExportOutcome:
    log.warning("onnx-int8 is not shipped: %s", message)
    return ExportOutcome(ExportFormat.ONNX_INT8, shipped=False, loss=loss, texts=texts, message=message)


def _remove(path: Path) -> None:
    for each in files_of(path):
        each.unlink()
