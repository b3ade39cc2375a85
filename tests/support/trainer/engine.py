"""Builds the training engine without a run around it: tokenized texts in memory, and a tiny model of any task.

And its first step, with the same step as plain transformers computes it to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback

from luthier_api.training import Precision, Task, TrainingSpec
from luthier_trainer.engine.collate import MicroBatch
from luthier_trainer.engine.device import detect_device
from luthier_trainer.engine.finetuner import FineTuner, fine_tuner
from luthier_trainer.engine.trainer_arguments import trainer_arguments
from luthier_trainer.formats.prepared import LAYOUT_VERSION, Part, PreparedData, PreparedFolder
from luthier_trainer.formats.quality_report import QualityReport
from luthier_trainer.tasks.interface import IGNORED, TaskModule
from luthier_trainer.tasks.registry import task_of

LABELS = {
    Task.TEXT_CLASSIFICATION: ["negative", "positive"],
    Task.MULTI_LABEL: ["long", "good", "exclaims"],
    Task.REGRESSION: ["rating"],
    Task.TOKEN_CLASSIFICATION: ["word", "mark", "other"],
}


def target(task: Task, text: str, label: str, ids: Sequence[int]) -> Any:
    """Something to learn of a review, whatever the task."""
    match task:
        case Task.TEXT_CLASSIFICATION:
            return int(label == "positive")
        case Task.MULTI_LABEL:
            return [n for n, true in enumerate((len(text) > 80, label == "positive", "!" in text)) if true]
        case Task.REGRESSION:
            return len(text) / 50 - 1
        case Task.TOKEN_CLASSIFICATION:
            return [IGNORED, *(each % 3 if each % 4 else IGNORED for each in ids[1:-1]), IGNORED]


def part_of(folder: Path, task: TaskModule, rows: Sequence[tuple[str, str]], *, max_length: int, pairs: bool) -> Part:
    """Tokenize texts; as pairs each has the one before it as its second."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids, seconds = [], []
    for place, (text, _) in enumerate(rows):
        first = tokenizer.encode(text).ids
        second = tokenizer.encode(rows[place - 1][0]).ids[1:] if pairs else []
        first, second = (first[: max_length // 2], second[: max_length // 2]) if pairs else (first[:max_length], [])
        ids.append([*first, *second])
        seconds.append(len(first) if pairs else 0)
    targets = [target(task.name, text, label, each) for (text, label), each in zip(rows, ids, strict=True)]
    return Part.of(ids, targets, task.target_type, second_starts=seconds)


def data_of(
    folder: Path,
    task: Task,
    rows: Sequence[tuple[str, str]],
    *,
    held_out: int,
    max_length: int = 32,
    pairs: bool = False,
) -> PreparedFolder:
    """Prepare rows, the last of which are held out."""
    module = task_of(task)
    train, kept = (
        part_of(folder, module, chosen, max_length=max_length, pairs=pairs)
        for chosen in (rows[:-held_out], rows[-held_out:])
    )
    return data_of_parts(task, train, kept, max_length=max_length, pairs=pairs)


def data_of_parts(task: Task, train: Part, kept: Part, *, max_length: int = 32, pairs: bool = False) -> PreparedFolder:
    """Describe parts."""
    data = PreparedData(
        layout_version=LAYOUT_VERSION,
        labels=LABELS[task],
        max_length=max_length,
        pad_token_id=0,
        pairs=pairs,
        train_examples=len(train),
        eval_examples=len(kept),
    )
    return PreparedFolder(data, QualityReport.model_construct(), train, kept, None)


def model_of(folder: Path, task: Task, **config: Any) -> PreTrainedModel:
    """Load a tiny model with a task's head; the same one every time."""
    torch.manual_seed(7)
    model: PreTrainedModel = getattr(transformers, task_of(task).auto_class).from_pretrained(
        folder, num_labels=len(LABELS[task]), dtype=torch.float32, **config
    )
    # An untrained head says almost the same of every text, and equal logits would prove little.
    for name, weights in model.named_parameters():
        if "classifier" in name and name.endswith("weight"):
            weights.data *= 20
    return model


def spec_of(task: Task, **fields: Any) -> TrainingSpec:
    """A spec; keyword arguments are hyperparameters."""
    defaults = {"epochs": 1, "batchSize": 16, "learningRate": "5e-4"}
    return TrainingSpec.model_validate(
        {
            "task": task,
            "model": {"uri": "file:///model"},
            "dataset": {"train": {"uri": "file:///train.csv"}},
            "hyperparameters": defaults | fields,
            "output": {"name": "m", "uri": "file:///registry/"},
        }
    )


def tuner_of(
    output: Path,
    model: torch.nn.Module,
    prepared: PreparedFolder,
    spec: TrainingSpec,
    *callbacks: TrainerCallback,
    change: Callable[[transformers.TrainingArguments], None] = lambda arguments: None,
    precision: Precision = Precision.FP32,
) -> FineTuner:
    """Make the engine as `train` does."""
    task = task_of(spec.task)
    arguments = trainer_arguments(
        spec, task, examples=len(prepared.train), precision=precision, device=detect_device(), folder=output
    )
    change(arguments)
    tuner = fine_tuner(model, arguments, task, spec.hyperparameters, prepared, callbacks=list(callbacks))
    tuner.remove_callback(PrinterCallback)
    return tuner


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def first_share(tuner: FineTuner) -> list[MicroBatch]:
    share: list[MicroBatch] = next(iter(tuner.get_train_dataloader()))
    return share


def step_of(tuner: FineTuner) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of the first optimizer step."""
    assert isinstance(tuner.model, nn.Module)
    loss = float(tuner.training_step(tuner.model, first_share(tuner)))
    return loss, gradients(tuner.model)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(
            found[name], wanted[name], atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n} {text}"
        )


def padded_step(model: PreTrainedModel, tuner: FineTuner) -> tuple[float, dict[str, torch.Tensor]]:
    """The same step as plain transformers computes it: one padded batch, the model's own loss."""
    (packed,) = first_share(tuner)
    task, part = tuner._task, tuner._shares.collator.part
    width = max(packed.lengths)

    def padded(values: list[Any], filler: int) -> torch.Tensor:
        return torch.tensor([[*each, *[filler] * (width - len(each))] for each in values])

    indices = [int(index) for index in packed.indices]
    ids = [part.input_ids(index).tolist() for index in indices]
    batch = {"input_ids": padded(ids, 0), "attention_mask": padded([[1] * len(each) for each in ids], 0)}
    if getattr(model.config, "type_vocab_size", 0) > 1 and part.second_start(indices[0]):
        starts = [part.second_start(index) for index in indices]
        kinds = [[int(n >= start) for n in range(len(each))] for each, start in zip(ids, starts, strict=True)]
        batch["token_type_ids"] = padded(kinds, 0)
    labels = (
        padded([part.target(index) for index in indices], -100)
        if task.per_token
        else torch.tensor(task.dense_targets(part, model.config.num_labels)[indices])
    )
    labels = labels.long() if task.loss == "cross-entropy" else labels.float()
    loss = model.train()(**batch, labels=labels).loss
    loss.backward()
    return float(loss.detach()), gradients(model)
