"""What follows from spec.hyperparameters: steps, warmup, and the metric that picks the best weights. Pure."""

import math

from luthier_api.training import Hyperparameters
from luthier_trainer.tasks.interface import TaskModule

DEFAULT_WARMUP_RATIO = 0.06  # RoBERTa (Liu et al., 2019), table 10


def steps_per_epoch(parameters: Hyperparameters, examples: int) -> int:
    """Return the optimizer steps in which every example is seen once; the last one may see fewer."""
    return math.ceil(examples / parameters.examples_per_step())


def total_steps(parameters: Hyperparameters, examples: int) -> int:
    """Return the optimizer steps of all epochs."""
    return parameters.epochs * steps_per_epoch(parameters, examples)


def eval_steps(parameters: Hyperparameters, examples: int) -> int:
    """Return the optimizer steps between evaluations: as many as there are in an epoch unless the spec says others."""
    return parameters.eval_steps or steps_per_epoch(parameters, examples)


def warmup_steps(parameters: Hyperparameters, steps: int) -> int:
    """Return the steps of linear warmup."""
    if parameters.warmup_steps is not None:
        return parameters.warmup_steps
    ratio = DEFAULT_WARMUP_RATIO if parameters.warmup_ratio is None else float(parameters.warmup_ratio)
    return math.ceil(steps * ratio)


def best_metric(parameters: Hyperparameters, task: TaskModule) -> str:
    """Return the metric that picks the best weights."""
    return parameters.metric_for_best_model or task.best_metric


def greater_is_better(parameters: Hyperparameters, task: TaskModule) -> bool:
    """Tell the direction of the metric that picks the best weights."""
    if parameters.greater_is_better is not None:
        return parameters.greater_is_better
    return best_metric(parameters, task).removeprefix("eval_") not in ("loss", *task.errors)
