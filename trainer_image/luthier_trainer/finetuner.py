"""The training engine: transformers' Trainer, whose steps are computed without work on padding.

Optimizer, schedule, precision, callbacks and checkpoints are the Trainer's. Its own here are what one step is, and what
an evaluation is:

    a batch of the DataLoader = this rank's share of one optimizer step, as micro-batches (`loading`)
    training_step             = forward and backward of each, every loss a sum over rows / rows of the global batch
    evaluate                  = `predictions`, measured by the task

So its gradient_accumulation_steps is 1: a step is a step for every callback, schedule and checkpoint, in however many
pieces it is computed. What is random in a step (dropout) depends on the seed, the step and the rank alone, so that a
resumed run goes on like one that was never interrupted. Needs torch.
"""

import contextlib
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from luthier_api.training import Hyperparameters
from luthier_trainer import memory
from luthier_trainer.batches import Limits, Schedule, cut, longest_first
from luthier_trainer.callbacks import ADVICE
from luthier_trainer.errors import LossNotFinite
from luthier_trainer.loading import Collator, MicroBatch, Shares, StepSampler, only, pretrained, token_format
from luthier_trainer.losses import choose_loss
from luthier_trainer.packing import Packing, fitting_packing
from luthier_trainer.prepared import Part, PreparedFolder
from luthier_trainer.tasks import Predictions, TaskModule

log = logging.getLogger(__name__)

# Texts on which packed and padded logits are compared before a packed model is trusted.
_COMPARED_TEXTS = 8
_NEVER = 2**62


class FineTuner(Trainer):
    """Trains one model for one task.

    Args:
        model: with the task's head; a peft model too.
        arguments: as `hyperparameters.training_arguments` made them.
        task: what is learned.
        parameters: of the spec.
        prepared: the data; `held_out` is evaluated while training.
        callbacks: that watch.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        task: TaskModule,
        parameters: Hyperparameters,
        prepared: PreparedFolder,
        callbacks: list[TrainerCallback],
    ) -> None:
        # The Trainer wants to see something to evaluate; what it is, `evaluate` knows.
        super().__init__(model=model, args=arguments, eval_dataset=prepared.held_out, callbacks=callbacks)
        self._task, self._parameters, self._labels = task, parameters, prepared.data.labels
        self._held_out = prepared.held_out
        self._padded_to = prepared.data.max_length if parameters.padding == "max-length" else 0
        self._format = token_format(model, prepared.data.pad_token_id)
        self._train = self._collator(prepared.train)
        if parameters.gradient_checkpointing:
            # Not by TrainingArguments, whose name for it changes with the release.
            pretrained(model).gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
        self._packing = self._fitting_packing()
        targets = task.dense_targets(prepared.train, len(self._labels))
        self._loss = choose_loss(task.loss, parameters, targets, len(self._labels)).to(arguments.device)
        self._shares = self._plan()
        # The first step whose loss or gradient was no number; kept on the device, where nothing waits for it.
        self._bad_step = torch.full((), _NEVER, device=arguments.device)

    def use(self, model: nn.Module) -> None:
        """Evaluate another model from now on: what a method made of the one that was trained."""
        if model is not self.model:
            self.model = self.model_wrapped = model.to(self.args.device)
            self._packing = self._fitting_packing()

    # ---- Training ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the shares of this rank. Every rank has its own, so accelerate has nothing to distribute."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self._shares,
            batch_sampler=StepSampler(len(self._shares), lambda: self.state.global_step),
            collate_fn=only,
            num_workers=workers,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """Return the examples of an epoch; an item of the DataLoader is a step."""
        return len(self._train.part)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute the gradients of one optimizer step.

        Returns:
            The loss of this rank times the number of ranks, so that their mean is the loss of the global batch.

        Raises:
            LossNotFinite: at once on a CPU; on a GPU when somebody reads a result (`check_finite`).
            GpuOutOfMemory: if half the micro-batch is still too much, or was tried before.
        """
        model.train()
        return self._watched(self._gradients(model, inputs), "loss")

    def _gradients(self, model: nn.Module, share: list[MicroBatch]) -> torch.Tensor:
        """Add up the gradients of a share, and return its loss."""
        parameters = (self._parameters.seed, self.state.global_step, self.args.process_index)
        torch.manual_seed(int(np.random.SeedSequence(parameters).generate_state(1, np.uint64)[0]))
        world = self.args.world_size
        total = torch.zeros((), device=self.args.device)
        for batch in share:
            # Ranks add their gradients up once, with the last piece.
            together = contextlib.nullcontext() if batch is share[-1] else self.accelerator.no_sync(model)
            there = batch.to(self.args.device)
            with together, self._computing(there):
                rows = self._loss.rows(self._logits(model, there), there.targets)
                loss = rows.sum() * (batch.share * world)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        norm: torch.Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        # With loss scaling a gradient that overflows is skipped, and the scale is lowered.
        return norm if self.args.fp16 else self._watched(norm, "gradient")

    def _watched(self, value: torch.Tensor, name: str) -> torch.Tensor:
        """Note whether a value of this step is a number."""
        step = self.state.global_step + 1
        if value.device.type == "cpu":
            if not torch.isfinite(value):
                raise LossNotFinite(f"The {name} is {float(value)} at step {step}. {ADVICE}")
        else:
            self._bad_step = torch.where(torch.isfinite(value), self._bad_step, self._bad_step.clamp(max=step))
        return value

    def check_finite(self) -> None:
        """Raise if any step so far had a loss or a gradient that was no number.

        Raises:
            LossNotFinite: with the step.
        """
        step = int(self._bad_step)
        if step < _NEVER:
            raise LossNotFinite(f"The loss or its gradient was not a number at step {step}. {ADVICE}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log values; the loss is a number up to here."""
        self.check_finite()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_finite()
        super()._save_checkpoint(model, trial)

    # ---- Evaluation ----

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure the model on the held-out examples."""
        predictions = self.predictions(self._held_out)
        measured = {"loss": predictions.loss, **self._task.measure(predictions, self._labels)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predictions(self, part: Part) -> Predictions:
        """Compute logits for every example of a part, in the part's order; ranks share the work."""
        collator = self._collator(part)
        limits = memory.evaluation_limits(
            self._parameters, padded_to=self._padded_to, packed=self._packing is not None, is_gpu=self._is_gpu
        )
        pieces = cut(longest_first(np.arange(len(part)), part.lengths), part.lengths, limits)
        mine = pieces[self.args.process_index :: self.args.world_size]
        logits = self._evaluated(collator.collate(piece, limits, 0.0) for piece in mine)
        if self.args.world_size > 1:
            shares = gather_object([(mine, logits)])
            mine = [piece for pieces, _ in shares for piece in pieces]
            logits = np.concatenate([each for _, each in shares])
        ends = np.cumsum(collator.rows)
        places = [np.arange(ends[index] - collator.rows[index], ends[index]) for piece in mine for index in piece]
        ordered = np.empty_like(logits)
        ordered[np.concatenate(places)] = logits
        targets = self._task.dense_targets(part, len(self._labels))
        rows = self._loss.plain().rows(torch.from_numpy(ordered), torch.tensor(targets))
        return Predictions(ordered, targets, collator.rows, float(rows.mean()))

    @torch.no_grad()
    def _evaluated(self, batches: Iterable[MicroBatch]) -> npt.NDArray[np.float32]:
        """Return logits [rows, outputs] in the order of the batches; the device is waited for once."""
        model = self._evaluated_model()
        found = [torch.empty(0, len(self._labels), device=self.args.device)]
        for batch in batches:
            there = batch.to(self.args.device)
            with self._computing(there), self.accelerator.autocast():
                found.append(self._logits(model, there).float())
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        logits: npt.NDArray[np.float32] = torch.cat(found).cpu().numpy()
        return logits

    def _evaluated_model(self) -> nn.Module:
        assert self.model is not None
        return self.model.eval()

    # ---- Forward pass ----

    def _computing(self, batch: MicroBatch) -> contextlib.AbstractContextManager[None]:
        return self._packing.computing(batch) if self._packing else contextlib.nullcontext()

    def _logits(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """Return logits [rows, outputs] of a micro-batch."""
        names = ("input_ids", "position_ids", "attention_mask", "token_type_ids")
        given = {name: value for name in names if (value := getattr(batch, name)) is not None}
        logits: torch.Tensor = model(**given).logits
        return logits if batch.rows is None else logits.flatten(0, 1)[batch.rows]

    def _fitting_packing(self) -> Packing | None:
        """Return how the model is packed, None where every text is padded."""
        # Compiled code wants few shapes, and hooks break it into pieces.
        if self._padded_to or self.args.torch_compile:
            return None
        lengths = self._train.part.lengths
        order = longest_first(np.arange(len(lengths)), lengths)
        chosen = order[np.unique(np.linspace(0, len(order) - 1, _COMPARED_TEXTS).astype(int))]
        packed, padded = (
            self._train.collate(chosen, Limits(len(chosen), _NEVER, packed=packed), 0.0).to(self.args.device)
            for packed in (True, False)
        )
        model = self._evaluated_model()
        with torch.no_grad():
            return fitting_packing(
                model,
                per_token=self._task.per_token,
                pairs=[(packed, padded)],
                compute=lambda batch: self._logits(model, batch),
            )

    # ---- Plan ----

    def _plan(self) -> Shares:
        packed = self._packing is not None
        limits = memory.training_limits(
            self._parameters,
            world=self.args.world_size,
            padded_to=self._padded_to,
            packed=packed,
            is_gpu=self._is_gpu,
        )
        schedule = Schedule(
            self._train.part.lengths,
            self._parameters.examples_per_step(),
            self._parameters.seed,
            grouped=not packed and not self._padded_to,
        )
        return Shares(self._train, schedule, limits, self.args.process_index, self.args.world_size)

    def _collator(self, part: Part) -> Collator:
        return Collator(part, self._task, len(self._labels), self._format)

    @property
    def _is_gpu(self) -> bool:
        return bool(self.args.device.type == "cuda")
