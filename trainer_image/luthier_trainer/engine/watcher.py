"""Reports what the Trainer does to the progress document, the log and a terminal.

It only observes, with one exception: an evaluation whose loss is not finite ends the run.
"""

import logging
import math
import sys
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from luthier_trainer.runtime.errors import LossNotFinite
from luthier_trainer.runtime.progress import Progress

log = logging.getLogger(__name__)

# Of what the Trainer logs, beside evaluations. `texts_at_once` is logged when memory did not suffice for more.
SHOWN = ("loss", "learning_rate", "grad_norm", "texts_at_once")
ADVICE = "Lower hyperparameters.learningRate, add warmup, or use precision bf16 or fp32."


class Watcher(TrainerCallback):
    """Watches one training.

    Args:
        progress: what the outside sees.
        bar: draw a progress bar on standard error instead of logging each step.
    """

    def __init__(self, progress: Progress, *, bar: bool) -> None:
        self._progress = progress
        self._wants_bar = bar
        self._bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The number of steps is known."""
        self._progress.begin_steps(state.max_steps, state.global_step)
        if self._wants_bar:
            bar: dict[str, Any] = {"initial": state.global_step, "file": sys.stderr, "dynamic_ncols": True}
            self._bar = tqdm(total=state.max_steps, unit="step", desc="training", **bar)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """An optimizer step is done."""
        # What the step that is done was made of, over all processes.
        examples, tokens = kwargs["train_dataloader"].dataset.sizes(state.global_step - 1)
        self._progress.finish_step(state.global_step, round(state.epoch or 0.0, 4), examples=examples, tokens=tokens)
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Loss, learning rate and gradient norm, or the metrics of an evaluation."""
        values = {name: float(value) for name, value in (logs or {}).items() if _is_number(value)}
        shown = {name: value for name, value in values.items() if name in SHOWN}
        self._progress.record_metrics(
            {name: value for name, value in values.items() if name.startswith("eval_")} | shown
        )
        if torch.cuda.is_available():
            self._progress.record_gpu_memory(torch.cuda.max_memory_allocated())
        if "loss" not in shown:
            return
        # For the curves of the report.
        speed = self._progress.document()
        state.log_history[-1] |= {
            name: value
            for name in ("examples_per_second", "tokens_per_second")
            if (value := getattr(speed, name)) is not None
        }
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()})
        else:
            text = " ".join(f"{name}={value:.4g}" for name, value in shown.items())
            log.info("step %d/%d %s", state.global_step, state.max_steps, text)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """The model was evaluated while it is trained."""
        self._progress.pause()
        values = metrics or {}
        loss = next((value for name, value in values.items() if name.endswith("_loss")), 0.0)
        if not math.isfinite(loss):
            raise LossNotFinite(f"The evaluation loss is {loss} after step {state.global_step}. {ADVICE}")
        text = " ".join(f"{k}={v:.4f}" for k, v in values.items() if k.endswith(("loss", "accuracy", "f1_macro")))
        log.info("evaluated after step %d: %s", state.global_step, text)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A checkpoint was written."""
        self._progress.pause()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The last step is done."""
        self._progress.end_steps()
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _is_number(value: object) -> bool:
    """Transformers 5 hands some values over as text that is meant for people."""
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
