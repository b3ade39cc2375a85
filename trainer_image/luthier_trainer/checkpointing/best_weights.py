"""The best weights by one metric: kept while training, restored at its end, and the criterion of early stopping.

A callback of ours and not transformers' load_best_model_at_end, because that ties evaluations to checkpoints, and
because what it knows must survive in a checkpoint. Only weights that are trained are kept: of LoRA the adapter.
"""

import json
import logging
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from luthier_api.training import EarlyStopping
from luthier_trainer.runtime.distributed import World
from luthier_trainer.runtime.errors import InvalidSpec

WEIGHTS_FILE = "best.safetensors"
RECORD_FILE = "best.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What the evaluations so far came to.

    Attributes:
        metric: the best value; None before the first.
        step: when it was measured.
        without_improvement: evaluations since one was better by the threshold.
    """

    metric: float | None = None
    step: int | None = None
    without_improvement: int = 0


class BestWeights(TrainerCallback):
    """Judges each evaluation.

    Args:
        metric: with eval_ before it or not.
        greater_is_better: its direction.
        stopping: when to give up; None never does.
        folder: where the weights lie.
        world: the processes of this run; the first one writes.
    """

    def __init__(
        self, metric: str, *, greater_is_better: bool, stopping: EarlyStopping | None, folder: Path, world: World
    ) -> None:
        self.record = Record()
        self._metric = metric if metric.startswith("eval_") else f"eval_{metric}"
        self._greater_is_better = greater_is_better
        self._stopping = stopping
        self._folder = folder
        self._world = world

    @property
    def patience_is_exhausted(self) -> bool:
        """Whether patience has run out."""
        return self._stopping is not None and self.record.without_improvement >= self._stopping.patience

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the weights if they are the best so far, and stop if there was no better for too long."""
        assert model is not None
        value = (metrics or {}).get(self._metric)
        if value is None:
            known = ", ".join(sorted(name for name in metrics or {} if name.startswith("eval_")))
            raise InvalidSpec(f"metricForBestModel {self._metric} is not measured; there are {known}.")
        if self._improves(value, by=0.0):
            self._save(model)
            step: int | None = state.global_step
            metric: float | None = value
        else:
            step, metric = self.record.step, self.record.metric
        threshold = float(self._stopping.threshold) if self._stopping else 0.0
        waited = 0 if self._improves(value, by=threshold) else self.record.without_improvement + 1
        self.record = Record(metric, step, waited)
        if self.patience_is_exhausted:
            log.info("%s has not improved for %d evaluations: training ends", self._metric, waited)
            control.should_training_stop = True

    def restore(self, model: torch.nn.Module) -> None:
        """Give the model the best weights, in every process; nothing where no evaluation was a number."""
        if self.record.step is None:
            return
        trained = trainable_parameters(model)
        if self._world.is_first:
            kept = load_file(self._folder / WEIGHTS_FILE)
            with torch.no_grad():
                for name, weight in trained.items():
                    weight.copy_(kept[name])
        self._world.broadcast_tensors(trained.values())
        log.info("restored the weights of step %d: %s %.4f", self.record.step, self._metric, self.record.metric)

    def save_into(self, checkpoint: Path) -> None:
        """Put record and weights into a checkpoint's folder."""
        (checkpoint / RECORD_FILE).write_text(json.dumps(asdict(self.record)))
        if self.record.step is not None:
            os.link(self._folder / WEIGHTS_FILE, checkpoint / WEIGHTS_FILE)

    def load_from(self, checkpoint: Path) -> None:
        """Go on from a checkpoint's record and weights."""
        self.record = replace(Record(), **json.loads((checkpoint / RECORD_FILE).read_text()))
        if self.record.step is not None and self._world.is_first:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / WEIGHTS_FILE).unlink(missing_ok=True)
            os.link(checkpoint / WEIGHTS_FILE, self._folder / WEIGHTS_FILE)

    def _improves(self, value: float, *, by: float) -> bool:
        if math.isnan(value):
            return False
        if self.record.metric is None:
            return True
        gain = value - self.record.metric
        return (gain if self._greater_is_better else -gain) > by

    def _save(self, model: torch.nn.Module) -> None:
        if not self._world.is_first:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # A new file each time: checkpoints that are still uploaded hold links to the old one.
        fresh = self._folder / f"{WEIGHTS_FILE}.new"
        save_file({name: weight.detach().cpu() for name, weight in trainable_parameters(model).items()}, fresh)
        fresh.replace(self._folder / WEIGHTS_FILE)


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that training changes, by name; shared ones once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
