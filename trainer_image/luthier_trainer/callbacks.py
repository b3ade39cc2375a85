"""What the Trainer tells while it trains: to the progress document, the log and a terminal.

The only callback of ours. It watches; the one thing it decides is that an evaluation whose loss is not finite ends the
run.
"""

import logging
import math
import sys
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from luthier_trainer.errors import LossNotFinite
from luthier_trainer.progress import Progress

log = logging.getLogger(__name__)

ADVICE = "Lower hyperparameters.learningRate, add warmup, or use precision bf16 or fp32."


class Watcher(TrainerCallback):
    """Watches one training.

    Args:
        progress: what the outside sees.
        examples: training examples of one epoch.
        bar: draw a progress bar on standard error instead of logging each step.
    """

    def __init__(self, progress: Progress, examples: int, *, bar: bool) -> None:
        self._progress = progress
        self._examples = examples
        self._wants_bar = bar
        self._bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The number of steps is known."""
        self._progress.begin_steps(state.max_steps, state.global_step)
        if self._wants_bar:
            self._bar = tqdm(total=state.max_steps, unit="step", desc="training", file=sys.stderr, dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """An optimizer step is done."""
        epoch = state.epoch or 0.0
        # The last step of an epoch may be smaller, so the mean is over what was really seen.
        seen = epoch * self._examples
        self._progress.finish_step(state.global_step, round(epoch, 4), seen / max(1, state.global_step))
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
        shown = {name: value for name, value in values.items() if name in ("loss", "learning_rate", "grad_norm")}
        self._progress.measure({name: value for name, value in values.items() if name.startswith("eval_")} | shown)
        if not shown:
            return
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
        values = metrics or {}
        loss = next((value for name, value in values.items() if name.endswith("_loss")), 0.0)
        if not math.isfinite(loss):
            raise LossNotFinite(f"The evaluation loss is {loss} after step {state.global_step}. {ADVICE}")
        text = " ".join(f"{k}={v:.4f}" for k, v in values.items() if k.endswith(("loss", "accuracy", "f1_macro")))
        log.info("evaluated after step %d: %s", state.global_step, text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The last step is done."""
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
