"""Writes the trained model as ONNX, and proves on real texts that it computes the same as torch.

    inputs   input_ids, attention_mask   int64 [batch, sequence], both dynamic
    output   logits                      float32 [batch, labels]

Token types are not an input: for a single text they are zeros, which models fill in by themselves.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from transformers import PreTrainedModel

from luthier_api.training import ExportFormat, TrainingSpec
from luthier_trainer.errors import ExportFailed
from luthier_trainer.prepared import PreparedFolder
from luthier_trainer.tasks import TaskModule

log = logging.getLogger(__name__)

ONNX_FILE = "model.onnx"
# Attention in its modern form needs 14, layer normalization as one operator 17; 18 is the exporter's own.
OPSET = 18
TOLERANCE = 1e-3
PARITY_TEXTS = 64
_PARITY_BATCH = 8
# A protobuf message cannot be larger than 2 GiB.
_ONE_FILE_BYTES = 1_800_000_000


@dataclass(frozen=True)
class ExportOutcome:
    """What became of one format.

    Attributes:
        format: as in spec.export.
        shipped: whether the artifact holds it.
        difference: largest difference of any logit from the model's, where it was measured.
        loss: how much worse the best-model metric is than the model's, where it was measured.
        message: why it was not shipped.
    """

    format: ExportFormat
    shipped: bool
    difference: float | None = None
    loss: float | None = None
    message: str | None = None


def export_model(
    model: PreTrainedModel,
    folder: Path,
    spec: TrainingSpec,
    task: TaskModule,
    prepared: PreparedFolder,
    *,
    threads: int,
) -> list[ExportOutcome]:
    """Write what spec.export asks for beside safetensors, each compared with the model.

    Raises:
        ExportFailed: if ONNX in fp32 cannot be written, or computes something else.
    """
    model.cpu().eval()  # type: ignore[no-untyped-call]
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = [ExportOutcome(ExportFormat.SAFETENSORS, shipped=True)]
    if ExportFormat.ONNX in spec.export:
        part = prepared.held_out
        ids = [part.input_ids(index).tolist() for index in range(len(part))]
        difference = export_onnx(model, folder, ids, prepared.data.pad_token_id, threads=threads)
        outcomes.append(ExportOutcome(ExportFormat.ONNX, shipped=True, difference=difference))
    return outcomes


class _Logits(torch.nn.Module):
    """The model with tensors in and one tensor out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(
    model: PreTrainedModel, folder: Path, token_ids: Sequence[Sequence[int]], pad_token_id: int, *, threads: int
) -> float:
    """Write model.onnx and compare it with the model.

    Args:
        model: on the CPU, in fp32, in evaluation mode.
        folder: where to write.
        token_ids: real texts to compare on, of different lengths.
        pad_token_id: fills batches up.
        threads: CPUs to use.

    Returns:
        The largest absolute difference of any logit.

    Raises:
        ExportFailed: if the model cannot be exported, or computes something else.
    """
    path = folder / ONNX_FILE
    samples = sorted(token_ids, key=len)
    # The longest and the shortest, and evenly what lies between.
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, min(PARITY_TEXTS, len(samples))).astype(int)]
    # Two texts of more than one token: sizes of 0 and 1 would be taken for constants.
    example = _batch([*chosen[-1:], *chosen[-1:]], pad_token_id)
    try:
        _write(model, path, example)
        difference = _largest_difference(model, path, chosen, pad_token_id, threads)
    except Exception as error:  # the exporter and the runtime raise whatever goes wrong inside them
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportFailed(f"The model cannot be written as ONNX: {reason[:500]}. Leave onnx out of export.") from error
    if not difference <= TOLERANCE:
        raise ExportFailed(
            f"The ONNX model's logits differ by {difference:.2g} from the trained model's, more than {TOLERANCE:g}. "
            "Leave onnx out of export."
        )
    return difference


def _batch(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def _write(model: PreTrainedModel, path: Path, example: tuple[torch.Tensor, torch.Tensor]) -> None:
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    for noisy in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(model).eval(),
            example,
            str(path),
            dynamo=True,
            dynamic_shapes=({**dynamic}, {**dynamic}),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            opset_version=OPSET,
            external_data=size > _ONE_FILE_BYTES,
            verbose=False,
        )


def _largest_difference(
    model: PreTrainedModel, path: Path, rows: Sequence[Sequence[int]], pad_token_id: int, threads: int
) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    with torch.no_grad():
        for start in range(0, len(rows), _PARITY_BATCH):
            ids, mask = _batch(rows[start : start + _PARITY_BATCH], pad_token_id)
            wanted = model(input_ids=ids, attention_mask=mask).logits.numpy()
            (found,) = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
            largest = max(largest, float(np.abs(found - wanted).max()))
    return largest
