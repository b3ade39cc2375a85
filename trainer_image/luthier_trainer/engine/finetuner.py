"""The training engine: transformers' Trainer, whose steps are computed without work on padding.

Optimizer, schedule, precision, callbacks and checkpoints are the Trainer's. Its own here are what one step is, and what
an evaluation is:

    a batch of the DataLoader = this rank's share of one optimizer step, as micro-batches (`loading`)
    training_step             = forward and backward of each, every loss a sum over rows / rows of the global batch
    evaluate                  = `predictions` (`evaluator`), measured by the task

So its gradient_accumulation_steps is 1: a step is a step for every callback, schedule and checkpoint, in however many
pieces it is computed. What is random in a step (dropout) depends on the seed, the step and the rank alone, so that a
resumed run continues exactly like one that was never interrupted. Needs torch.
"""

import contextlib
import logging
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from luthier_api.training import Hyperparameters
from luthier_trainer.engine import memory
from luthier_trainer.engine.collate import Collator, MicroBatch, pretrained, token_format
from luthier_trainer.engine.evaluator import Evaluator
from luthier_trainer.engine.forward import ForwardPass, choose_forward_pass
from luthier_trainer.engine.losses import Loss, choose_loss
from luthier_trainer.engine.memory_probe import probe_batch_limits
from luthier_trainer.engine.schedule import BatchLimits, Schedule
from luthier_trainer.engine.step_data import StepSampler, StepShares, only
from luthier_trainer.engine.watcher import ADVICE
from luthier_trainer.formats.prepared import Part, PreparedFolder
from luthier_trainer.runtime.errors import GpuOutOfMemory, InvalidSpec, LossNotFinite
from luthier_trainer.tasks.interface import Predictions, TaskModule

log = logging.getLogger(__name__)

_NEVER = 2**62


class FineTuner(Trainer):
    """Trains one model for one task. Made by `fine_tuner`.

    Args:
        model: with the task's head; a peft model too.
        arguments: as `trainer_arguments` made them.
        task: what is learned.
        parameters: of the spec.
        prepared: the data; `held_out` is evaluated while training.
        forward: how the model computes logits.
        may_pack: whether another model may be packed.
        loss: what is minimized.
        shares: this rank's part of each step.
        callbacks: that watch.

    Attributes:
        forward: how the model computes logits.
        memory_retries: how often a step was tried again in smaller pieces; at most once.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        *,
        task: TaskModule,
        parameters: Hyperparameters,
        prepared: PreparedFolder,
        forward: ForwardPass,
        may_pack: bool,
        loss: Loss,
        shares: StepShares,
        callbacks: list[TrainerCallback],
    ) -> None:
        # The Trainer wants to see something to evaluate; what it is, `evaluate` knows.
        super().__init__(model=model, args=arguments, eval_dataset=prepared.held_out, callbacks=callbacks)
        self.forward, self._may_pack = forward, may_pack
        self.memory_retries = 0
        self._task, self._parameters, self._labels = task, parameters, prepared.data.labels
        self._held_out = prepared.held_out
        self._max_length = prepared.data.max_length
        self._loss, self._shares = loss, shares
        # The piece that is computed, and whether ranks have begun to add up their gradients.
        self._computed: MicroBatch
        self._adding_up = False
        # The first step whose loss or gradient was no number; kept on the device, where nothing waits for it.
        self._bad_step = torch.full((), _NEVER, device=arguments.device)

    def use(self, model: nn.Module) -> None:
        """Evaluate another model from now on: what a method made of the one that was trained."""
        if model is not self.model:
            self.model = self.model_wrapped = model.to(self.args.device)
        # Also a model that only has other weights now: what a new head did not show may count when it is trained.
        self.forward = choose_forward_pass(
            model,
            self._shares.collator,
            self.args.device,
            may_pack=self._may_pack,
            max_length=self._max_length,
        )

    # ---- Training ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the shares of this rank. Every rank has its own, so accelerate has nothing to distribute."""
        if self._parameters.batch_size == "auto" and _is_gpu(self.args):
            self._shares.limits = self.probe_memory()
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
        return len(self._shares.collator.part)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute the gradients of one optimizer step.

        Returns:
            The loss of this rank times the number of ranks, so that their mean is the loss of the global batch.

        Raises:
            LossNotFinite: at once on a CPU; on a GPU at the next `check_finite`.
            GpuOutOfMemory: if half the micro-batch is still too much, or was tried before.
        """
        model.train()
        share: list[MicroBatch] = inputs
        if any(not self._shares.limits.allow(each.lengths) for each in share):
            # Cut by a worker process, which has not heard of smaller limits.
            share = self._shares.split_again(share)
        while True:
            failed: str | None = None
            try:
                loss = self._gradients(model, share)
            except torch.OutOfMemoryError as error:
                failed = str(error).splitlines()[0]
            if failed is None:
                return self._watched(loss, "loss")
            # Outside of the except clause, which would keep the tensors of the failed step alive.
            share = self._smaller(model, share, failed)

    def _gradients(self, model: nn.Module, share: list[MicroBatch]) -> torch.Tensor:
        """Add up the gradients of a share, and return its loss."""
        parameters = (self._parameters.seed, self.state.global_step, self.args.process_index)
        torch.manual_seed(int(np.random.SeedSequence(parameters).generate_state(1, np.uint64)[0]))
        world = self.args.world_size
        total = torch.zeros((), device=self.args.device)
        self._adding_up = False
        for batch in share:
            self._computed = batch
            # Ranks add their gradients up once, with the last piece.
            last = batch is share[-1]
            there = batch.to(self.args.device)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model), self.forward.computing(there):
                rows = self._loss.rows(self.forward.logits(model, there), there.targets)
                loss = rows.sum() * (batch.share * world)
                self._adding_up = last and world > 1
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def probe_memory(self) -> BatchLimits:
        """Return limits that this rank's memory allows.

        Raises:
            GpuOutOfMemory: if not even one text fits.
        """
        assert self.model is not None
        return probe_batch_limits(
            self.model,
            self.forward,
            self._shares.collator,
            self._loss,
            self._shares.limits,
            device=self.args.device,
            autocast=self.accelerator.autocast,
            copies=2 + (self.args.world_size > 1),
        )

    def _smaller(self, model: nn.Module, share: list[MicroBatch], failed: str) -> list[MicroBatch]:
        """Return a share whose computation ran out of memory in smaller pieces, for one more try.

        Raises:
            GpuOutOfMemory: if that was done before, or nothing smaller would do.
        """
        too_much = self._computed.lengths
        if self.memory_retries or len(too_much) == 1 or self._adding_up:
            raise GpuOutOfMemory(
                f"The GPU ran out of memory at step {self.state.global_step + 1} with {len(too_much)} texts of "
                f"{sum(too_much)} tokens at once{', half as many as before' if self.memory_retries else ''}. Lower "
                "hyperparameters.batchSize (with gradientAccumulationSteps the global batch stays), set "
                f"gradientCheckpointing, or lower maxLength. ({failed})"
            )
        self.memory_retries += 1
        self._shares.limits = self._shares.limits.halved(too_much)
        model.zero_grad(set_to_none=True)
        memory.release()
        log.warning(
            "out of memory at step %d with %d texts at once: tried again with at most %d, of the same global batch",
            self.state.global_step + 1,
            len(too_much),
            self._shares.limits.texts,
        )
        self.log({"texts_at_once": float(self._shares.limits.texts)})
        return self._shares.split_again(share)

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

    def store_flos(self) -> None:
        """Count no operations: they are not used, and counting would need all ranks while the first one saves."""

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
        assert self.model is not None
        limits = memory.evaluation_limits(
            self._parameters,
            padded_to=self._shares.limits.padded_to,
            packed=self.forward.packing is not None,
            one_length=self.forward.padding == "none",
            is_gpu=_is_gpu(self.args),
        )
        tokens = self._shares.collator.padded(self.forward.padding).tokens
        outputs = len(self._labels)
        evaluator = Evaluator(
            *(self.model, self.forward, self._task, outputs, tokens, self._loss, limits, self.accelerator),
            after_batch=self._after_batch,
        )
        return evaluator.predictions(part)

    def _after_batch(self) -> None:
        self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)


def fine_tuner(
    model: nn.Module,
    arguments: TrainingArguments,
    task: TaskModule,
    parameters: Hyperparameters,
    prepared: PreparedFolder,
    callbacks: list[TrainerCallback],
) -> FineTuner:
    """Return the engine for a model: packed if that computes the same logits, with its loss and its plan of steps.

    Args:
        model: with the task's head; a peft model too. Moved to the device.
        arguments: as `trainer_arguments` made them.
        task: what is learned.
        parameters: of the spec.
        prepared: the data.
        callbacks: that watch.
    """
    inner = pretrained(model)
    if parameters.gradient_checkpointing:
        # Not by TrainingArguments: its name for it, as this one, changes with the release.
        enable = getattr(inner, "activation_checkpointing_enable", None) or inner.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if not getattr(inner, "is_quantized", False):
        model.to(arguments.device)
    if not _is_gpu(arguments):
        memory.keep_freed_blocks()
    outputs = len(prepared.data.labels)
    train = Collator(prepared.train, task, outputs, token_format(model, prepared.data.pad_token_id))
    padded_to = prepared.data.max_length if parameters.padding == "max-length" else 0
    # Compiled code wants few shapes, and hooks break it into pieces; NEFTune scales its noise by a text's length.
    must_pad = bool(padded_to or arguments.torch_compile or arguments.neftune_noise_alpha)
    forward = choose_forward_pass(
        model, train, arguments.device, may_pack=not must_pad, max_length=prepared.data.max_length
    )
    if padded_to and forward.padding == "none":
        raise InvalidSpec(
            "hyperparameters.padding is max-length, and padding changes what this base model answers; set it to auto."
        )
    loss = choose_loss(task.loss, parameters, task.dense_targets(prepared.train, outputs), outputs)
    return FineTuner(
        model,
        arguments,
        task=task,
        parameters=parameters,
        prepared=prepared,
        forward=forward,
        may_pack=not must_pad,
        loss=loss.to(arguments.device),
        shares=_plan(train.padded(forward.padding), arguments, parameters, forward, padded_to=padded_to),
        callbacks=callbacks,
    )


def _plan(
    train: Collator,
    arguments: TrainingArguments,
    parameters: Hyperparameters,
    forward: ForwardPass,
    *,
    padded_to: int,
) -> StepShares:
    """Return this rank's shares of all steps."""
    packed = forward.packing is not None
    limits = memory.training_limits(
        parameters,
        world=arguments.world_size,
        padded_to=padded_to,
        packed=packed,
        one_length=forward.padding == "none",
        is_gpu=_is_gpu(arguments),
    )
    schedule = Schedule(
        train.part.lengths,
        parameters.examples_per_step(),
        parameters.seed,
        grouped=not packed and not padded_to,
    )
    return StepShares(train, schedule, limits, arguments.process_index, arguments.world_size)


def _is_gpu(arguments: TrainingArguments) -> bool:
    return bool(arguments.device.type == "cuda")
