"""Evaluation: the logits of every example of a part, computed by all ranks together, and their loss."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import nn

from luthier_trainer.engine.collate import Collator, MicroBatch, TokenFormat
from luthier_trainer.engine.forward import ForwardPass
from luthier_trainer.engine.losses import Loss
from luthier_trainer.engine.schedule import BatchLimits, longest_first, micro_batches
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.interface import Predictions, TaskModule


@dataclass(frozen=True)
class Evaluator:
    """Computes predictions of one model.

    Attributes:
        model: with the task's head.
        forward: how it computes.
        task: what is learned.
        outputs: number of the model's outputs.
        tokens: how the model wants its tokens.
        loss: what is minimized; evaluated without weights and smoothing.
        limits: of a micro-batch.
        accelerator: of the Trainer; its precision and its ranks.
        after_batch: called after each micro-batch; may raise to stop the evaluation.
    """

    model: nn.Module
    forward: ForwardPass
    task: TaskModule
    outputs: int
    tokens: TokenFormat
    loss: Loss
    limits: BatchLimits
    accelerator: Accelerator
    after_batch: Callable[[], None]

    def predictions(self, part: Part) -> Predictions:
        """Compute logits for every example of a part, in the part's order; ranks share the work."""
        collator = Collator(part, self.task, self.outputs, self.tokens)
        pieces = micro_batches(longest_first(np.arange(len(part)), part.lengths), part.lengths, self.limits)
        mine = pieces[self.accelerator.process_index :: self.accelerator.num_processes]
        logits = self._logits(collator.collate(piece, self.limits, 0.0) for piece in mine)
        if self.accelerator.num_processes > 1:
            shares = gather_object([(mine, logits)])
            mine = [piece for pieces, _ in shares for piece in pieces]
            logits = np.concatenate([each for _, each in shares])
        ordered = _in_order(logits, mine, collator)
        targets = self.task.dense_targets(part, self.outputs)
        rows = self.loss.plain().rows(torch.from_numpy(ordered), torch.tensor(targets))
        return Predictions(ordered, targets, collator.rows, float(rows.mean()))

    @torch.no_grad()
    def _logits(self, batches: Iterable[MicroBatch]) -> npt.NDArray[np.float32]:
        """Return logits [rows, outputs] in the order of the batches; the device is waited for once."""
        device = self.accelerator.device
        self.model.eval()
        found = [torch.empty(0, self.outputs, device=device)]
        for batch in batches:
            there = batch.to(device)
            with self.forward.computing(there), self.accelerator.autocast():
                found.append(self.forward.logits(self.model, there).float())
            self.after_batch()
        logits: npt.NDArray[np.float32] = torch.cat(found).cpu().numpy()
        return logits


def _in_order(
    logits: npt.NDArray[np.float32], pieces: list[npt.NDArray[np.int64]], collator: Collator
) -> npt.NDArray[np.float32]:
    """Put the rows of pieces of a part into the part's order."""
    ends = np.cumsum(collator.rows)
    places = [np.arange(ends[index] - collator.rows[index], ends[index]) for piece in pieces for index in piece]
    ordered = np.empty_like(logits)
    ordered[np.concatenate(places)] = logits
    return ordered
