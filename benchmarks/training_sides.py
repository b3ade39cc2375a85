"""The sides that training is measured for: what practitioners would otherwise run, and Luthier's engine.

    P1  the tutorial: transformers' Trainer, every text padded to maxLength
    P2  transformers' text-classification example: the same, each batch padded to its longest text
    P3  the strong one: the same, batches of texts of about one length (group_by_length)
    us  luthier_trainer's engine

All with the same seeds, global batch, optimizer and schedule, without evaluations and checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from luthier_api.training import Precision, Task, TrainingSpec
from luthier_trainer.engine.device import detect_device
from luthier_trainer.engine.finetuner import fine_tuner
from luthier_trainer.engine.trainer_arguments import trainer_arguments
from luthier_trainer.formats.prepared import LAYOUT_VERSION, Part, PreparedData, PreparedFolder
from luthier_trainer.formats.quality_report import QualityReport
from luthier_trainer.tasks.interface import IGNORED
from luthier_trainer.tasks.registry import task_of

PEERS = ("P1", "P2", "P3")
LEARNING_RATE = "5e-5"
PAD = 0


@dataclass(frozen=True)
class Data:
    """Tokenized texts of one task."""

    task: Task
    ids: list[list[int]]
    targets: list[Any]

    def first(self, count: int) -> Data:
        return Data(self.task, self.ids[:count], self.targets[:count])

    @property
    def mean_tokens(self) -> float:
        return sum(map(len, self.ids)) / len(self.ids)


@dataclass(frozen=True)
class Setting:
    """What all sides of a measurement share.

    Attributes:
        batch: examples of an optimizer step.
        max_length: tokens at most; P1 pads all texts to it.
        precision: of the matrix products.
        seed: of the order, and of dropout.
        epochs: over the data.
        compiled: compile the model; ours alone.
    """

    batch: int
    max_length: int
    precision: Precision = Precision.FP32
    seed: int = 0
    epochs: int = 1
    compiled: bool = False


def side(name: str, model: PreTrainedModel, data: Data, setting: Setting, folder: Path) -> Trainer:
    """Return a side's Trainer, about to train."""
    trainer = (peer if name in PEERS else ours)(name, model, data, setting, folder)
    trainer.remove_callback(PrinterCallback)
    return trainer


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """What a peer's Trainer reads; `lengths` would else be measured by reading everything first."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._data.ids[index], "labels": self._data.targets[index]}


@dataclass(frozen=True)
class Padded:
    """Pads as DataCollatorWithPadding does: to a width, or to the longest text of the batch."""

    width: int | None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return collate(rows, width=self.width)


def collate(rows: list[dict[str, Any]], *, width: int | None) -> dict[str, torch.Tensor]:
    width = width or max(len(row["input_ids"]) for row in rows)

    def filled(values: Iterator[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([[*each, *[filler] * (width - len(each))] for each in values])

    batch = {
        "input_ids": filled((row["input_ids"] for row in rows), PAD),
        "attention_mask": filled(([1] * len(row["input_ids"]) for row in rows), 0),
    }
    per_token = isinstance(rows[0]["labels"], list)
    labels = (
        filled((row["labels"] for row in rows), IGNORED) if per_token else torch.tensor([r["labels"] for r in rows])
    )
    return batch | {"labels": labels}


def peer(name: str, model: PreTrainedModel, data: Data, setting: Setting, folder: Path) -> Trainer:
    """A Trainer as its users set it up."""
    device = detect_device()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=setting.epochs,
        per_device_train_batch_size=setting.batch,
        learning_rate=float(LEARNING_RATE),
        weight_decay=0.01,
        lr_scheduler_type="linear",
        seed=setting.seed,
        use_cpu=not device.is_gpu,
        bf16=setting.precision is Precision.BF16,
        fp16=setting.precision is Precision.FP16,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.is_gpu,
        dataloader_num_workers=2 if device.is_gpu else 0,
        train_sampling_strategy="group_by_length" if name == "P3" else "random",
    )
    width = setting.max_length if name == "P1" else None
    return Trainer(model, arguments, Padded(width), Rows(data), callbacks=[])


def ours(name: str, model: PreTrainedModel, data: Data, setting: Setting, folder: Path) -> Trainer:
    """The engine as `train` sets it up, without evaluations and checkpoints."""
    spec = TrainingSpec.model_validate(
        {
            "task": data.task,
            "model": {"uri": "file:///model"},
            "dataset": {"train": {"uri": "file:///train.csv"}},
            "hyperparameters": {
                "epochs": setting.epochs,
                "batchSize": setting.batch,
                "learningRate": LEARNING_RATE,
                "weightDecay": "0.01",
                "warmupSteps": 0,
                "seed": setting.seed,
            },
            "trainingArguments": {"torch_compile": "true"} if setting.compiled else {},
            "output": {"name": "m", "uri": "file:///registry/"},
        }
    )
    task = task_of(data.task)
    part = Part.of(data.ids, data.targets, task.target_type)
    arguments = trainer_arguments(
        spec, task, examples=len(part), precision=setting.precision, device=detect_device(), folder=folder
    )
    arguments.eval_strategy = arguments.save_strategy = arguments.logging_strategy = "no"
    described = PreparedData(
        layout_version=LAYOUT_VERSION,
        labels=["no", "yes"],
        max_length=setting.max_length,
        pad_token_id=PAD,
        train_examples=len(part),
        eval_examples=len(part),
    )
    prepared = PreparedFolder(described, QualityReport.model_construct(), part, part, None)
    return fine_tuner(model, arguments, task, spec.hyperparameters, prepared, callbacks=[])
