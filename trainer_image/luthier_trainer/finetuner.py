"""The training engine: transformers' Trainer, fed with batches that hold no padding it can avoid.

One item of the training data is one optimizer step's whole share of this rank, so that a step is a step for every
callback, scheduler and checkpoint, however many pieces it is computed in. Needs torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
)

from luthier_trainer.base_model import BaseModel
from luthier_trainer.callbacks import ADVICE
from luthier_trainer.errors import LossNotFinite
from luthier_trainer.prepared import Part
from luthier_trainer.tasks import Predictions, TaskModule


class Examples(Dataset[dict[str, Any]]):
    """One part of the prepared data. Sorted by length for evaluation, where order means nothing and padding costs."""

    def __init__(self, part: Part, *, longest_first: bool = False) -> None:
        self._part = part
        self.order = np.argsort(-part.lengths, kind="stable") if longest_first else np.arange(len(part))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = int(self.order[position])
        return {"input_ids": self._part.input_ids(index).tolist(), "labels": self._part.target(index)}


class FineTuner(Trainer):
    """Trainer that stops where the loss stops being a number, instead of training on for nothing."""

    def __init__(self, *, task: TaskModule, labels: Sequence[str], evaluated: Part, **arguments: Any) -> None:
        self._task = task
        super().__init__(
            eval_dataset=Examples(evaluated, longest_first=True),
            compute_metrics=lambda output: task.measure(
                Predictions(
                    np.asarray(output[0]), np.asarray(output[1]), np.ones(len(output[1]), dtype=np.int64), float("nan")
                ),
                labels,
            ),
            **arguments,
        )

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute one batch's loss and gradients."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            raise LossNotFinite(f"The loss is {loss.item()} at step {self.state.global_step + 1}. {ADVICE}")
        return loss

    def predictions(self, part: Part) -> Predictions:
        """Compute logits for every example of a part, in the part's order."""
        examples = Examples(part, longest_first=True)
        output = self.predict(examples, metric_key_prefix="eval")
        back = np.argsort(examples.order)
        targets = np.asarray(output.label_ids)[back]
        loss = float((output.metrics or {})["eval_loss"])
        return Predictions(np.asarray(output.predictions)[back], targets, np.ones(len(back), dtype=np.int64), loss)


def padding(base: BaseModel, pad_token_id: int) -> DataCollatorWithPadding:
    """Pad each batch to its longest text, with the prepared data's padding token."""
    tokenizer = base.tokenizer()
    padded = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=tokenizer.id_to_token(pad_token_id)
    )
    return DataCollatorWithPadding(padded)


def log_file(root: Path) -> Path:
    """Return where the Trainer's log lies."""
    return root / "log.jsonl"
