"""Quantizes the exported model to int8, and measures how much worse it judges than the model itself.

Weights are quantized once, with one scale for each output channel; activations while computing, with one scale for each
batch. Weights keep 7 of their 8 bits: CPUs without VNNI add pairs of products in 16 bits, which 8 bits could overflow,
and a file that was judged on one CPU would answer otherwise on another (onnxruntime's documentation, "Quantize ONNX
models": U8S8 and reduce_range). Embeddings are quantized too, being most of a small model; the few weights of the
pooler and the head are not.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from luthier_trainer.engine.collate import Collator
from luthier_trainer.engine.losses import Loss
from luthier_trainer.engine.schedule import Indices, longest_first
from luthier_trainer.export.onnx_model import ONE_FILE_BYTES, OnnxModel, files_of, padded_batches, size_of
from luthier_trainer.tasks.interface import Floats, Predictions, TaskModule

# Gather is what embeddings are.
_OPERATIONS = ["MatMul", "Gather"]


@dataclass(frozen=True)
class Judge:
    """How two models are compared.

    Attributes:
        task: measures.
        labels: names of the outputs.
        metric: one of the task's metrics, or loss.
        greater_is_better: its direction.
    """

    task: TaskModule
    labels: list[str]
    metric: str
    greater_is_better: bool

    def loss(self, model: Predictions, other: Predictions) -> float:
        """Return by how much another model is worse; negative if it is better, NaN if that cannot be said."""
        difference = self._measured(model) - self._measured(other)
        return difference if self.greater_is_better else -difference

    def _measured(self, predictions: Predictions) -> float:
        if self.metric == "loss":
            return predictions.loss
        return self.task.measure(predictions, self.labels)[self.metric]


def quantize(source: Path, target: Path) -> None:
    """Write the int8 form of a model."""
    root = logging.getLogger()
    # It advises by the root logger to run steps that change nothing here.
    root.addFilter(_is_error)
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=_OPERATIONS,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=size_of(files_of(source)) / 4 > ONE_FILE_BYTES,
        )
    finally:
        root.removeFilter(_is_error)
        # Its own intermediate file, which it leaves behind where it fails.
        source.with_name(f"{source.stem}-inferred{source.suffix}").unlink(missing_ok=True)


def predict(model: OnnxModel, collator: Collator, chosen: Indices, task: TaskModule) -> Predictions:
    """Return what an exported model says of some examples, the longest first.

    One at a time, as the server computes them: a scale of one text's activations does not fit its neighbours'.
    """
    computed = [(batch.targets.numpy(), model.logits(batch)) for batch in padded_batches(collator, chosen, 1)]
    targets, logits = (np.concatenate(each) for each in zip(*computed, strict=True))
    rows = collator.rows[longest_first(chosen, collator.part.lengths)]
    return Predictions(logits, targets, rows, _mean_loss(task, logits, targets))


def select(predictions: Predictions, collator: Collator, chosen: Indices, task: TaskModule) -> Predictions:
    """Return what was said of some examples, the longest first."""
    ordered = longest_first(chosen, collator.part.lengths)
    rows, ends = predictions.rows_per_text, np.cumsum(predictions.rows_per_text)
    places = np.concatenate([np.arange(ends[index] - rows[index], ends[index]) for index in ordered])
    logits, targets = predictions.logits[places], predictions.targets[places]
    return Predictions(logits, targets, rows[ordered], _mean_loss(task, logits, targets))


def _mean_loss(task: TaskModule, logits: Floats, targets: np.ndarray) -> float:
    return float(Loss(task.loss).rows(torch.from_numpy(logits), torch.from_numpy(targets)).mean())


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
