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
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from luthier_api.training import Hyperparameters
from luthier_trainer.engine import memory
from luthier_trainer.engine.collate import Collator, MicroBatch, pretrained, token_format
from luthier_trainer.engine.losses import choose_loss
from luthier_trainer.engine.packing import Packing, fitting_packing
from luthier_trainer.engine.schedule import Limits, Schedule, cut, longest_first
from luthier_trainer.engine.step_data import Shares, StepSampler, only
from luthier_trainer.engine.watcher import ADVICE
from luthier_trainer.formats.prepared import Part, PreparedFolder
from luthier_trainer.runtime.errors import GpuOutOfMemory, LossNotFinite
from luthier_trainer.tasks.interface import Predictions, TaskModule

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

    Attributes:
        memory_retries: how often a step was tried again in smaller pieces; at most once.
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
            # Not by TrainingArguments: its name for it, as this one, changes with the release.
            inner = pretrained(model)
            enable = getattr(inner, "activation_checkpointing_enable", None) or inner.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        self._packing = self._fitting_packing()
        targets = task.dense_targets(prepared.train, len(self._labels))
        self._loss = choose_loss(task.loss, parameters, targets, len(self._labels)).to(arguments.device)
        self._shares = self._plan()
        if not self._is_gpu:
            memory.keep_freed_blocks()
        self.memory_retries = 0
        # The piece that is computed, and whether ranks have begun to add up their gradients.
        self._computed: MicroBatch
        self._adding_up = False
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
        if self._parameters.batch_size == "auto" and self._is_gpu:
            self._shares.limits = self.fitting_limits()
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
        share: list[MicroBatch] = inputs
        if any(not self._shares.limits.allow(each.lengths) for each in share):
            # Cut by a worker process, which has not heard of smaller limits.
            share = self._shares.cut_again(share)
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
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model), self._computing(there):
                rows = self._loss.rows(self._logits(model, there), there.targets)
                loss = rows.sum() * (batch.share * world)
                self._adding_up = last and world > 1
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def fitting_limits(self) -> Limits:
        """Return limits that this rank's memory allows, tried out on the longest texts.

        Ranks need not agree: a share is the same in however many pieces.

        Raises:
            GpuOutOfMemory: if not even one text fits.
        """
        assert self.model is not None
        model, limits, lengths = self.model.train(), self._shares.limits, self._train.part.lengths
        order = longest_first(np.arange(len(lengths)), lengths)
        most = min(limits.texts, len(order))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        # AdamW's two averages, and with several ranks the buckets that gradients are added up in.
        copies = 2 + (self.args.world_size > 1)

        def try_out(texts: int) -> None:
            reserved = [torch.empty_like(weight) for weight in weights for _ in range(copies)]
            batch = self._train.collate(order[:texts], limits, 1.0).to(self.args.device)
            try:
                with self.accelerator.autocast(), self._computing(batch):
                    self._loss.rows(self._logits(model, batch), batch.targets).mean().backward()  # type: ignore[no-untyped-call]
            finally:
                del reserved
                model.zero_grad(set_to_none=True)

        texts = memory.largest_that_fits(try_out, most)
        if not texts:
            raise GpuOutOfMemory(
                f"The GPU has no memory to train on one text of {lengths[order[0]]} tokens. Lower maxLength, set "
                "gradientCheckpointing, or train with method LoRA."
            )
        tokens = limits.tokens_of([int(length) for length in lengths[order[:texts]]])
        if texts < most:
            tokens = int(tokens * memory.MARGIN)
        log.info("batchSize auto: up to %d tokens at once", tokens)
        return replace(limits, tokens=tokens)

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
        return self._shares.cut_again(share)

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
        """Count no operations: nobody reads them, and the first rank saves while the others may not be there."""

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
        # Compiled code wants few shapes, and hooks break it into pieces; NEFTune scales its noise by a text's length.
        if self._padded_to or self.args.torch_compile or self.args.neftune_noise_alpha:
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
