"""Translates spec.hyperparameters into transformers.TrainingArguments, one line for each field.

Imports transformers, so only *train* uses it. Values that a user gives in spec.trainingArguments come on top;
`arguments` has made sure that they are not said twice.
"""

import math
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from luthier_api.training import Hyperparameters, Precision, TrainingSpec
from luthier_trainer.arguments import parse_training_arguments
from luthier_trainer.errors import InvalidSpec
from luthier_trainer.precision import Device
from luthier_trainer.tasks import TaskModule
from luthier_trainer.transformers_source import training_argument_types

DEFAULT_WARMUP_RATIO = 0.06  # RoBERTa (Liu et al., 2019), table 10
LOGS_PER_RUN = 25


def training_arguments(
    spec: TrainingSpec, task: TaskModule, *, examples: int, precision: Precision, device: Device, folder: Path
) -> TrainingArguments:
    """Return the arguments of the Trainer.

    Raises:
        InvalidSpec: if transformers refuses a value.
    """
    parameters = spec.hyperparameters
    evaluation = "epoch" if parameters.eval_steps is None else "steps"
    steps = total_steps(parameters, examples)
    given = {
        "output_dir": str(folder),
        "num_train_epochs": parameters.epochs,
        "per_device_train_batch_size": parameters.batch_size,
        "per_device_eval_batch_size": parameters.eval_batch_size,
        "gradient_accumulation_steps": parameters.gradient_accumulation_steps,
        "learning_rate": float(parameters.learning_rate),
        "lr_scheduler_type": parameters.scheduler if parameters.scheduler != "constant" else "constant_with_warmup",
        "warmup_steps": warmup_steps(parameters, steps),
        "weight_decay": float(parameters.weight_decay),
        "adam_epsilon": float(parameters.adam_epsilon),
        "max_grad_norm": float(parameters.max_grad_norm),
        "seed": parameters.seed,
        "bf16": precision is Precision.BF16,
        "fp16": precision is Precision.FP16,
        "use_cpu": not device.is_gpu,
        "dataloader_pin_memory": device.is_gpu,
        "eval_strategy": evaluation,
        "eval_steps": parameters.eval_steps,
        # Only the best weights are kept, and only the weights: they are what is restored at the end.
        "save_strategy": "best",
        "save_only_model": True,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": best_metric(parameters, task),
        "greater_is_better": greater_is_better(parameters, task),
        "logging_strategy": "steps",
        "logging_steps": max(1, steps // LOGS_PER_RUN),
        "logging_first_step": True,
        # A loss that is not finite ends the run (see `train`); the filter would hide it.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        **_grouped_by_length(),
        **parse_training_arguments(spec.training_arguments),
    }
    try:
        return TrainingArguments(**given)
    except (ValueError, TypeError, ImportError, KeyError) as error:
        names = ", ".join(sorted(spec.training_arguments)) or "hyperparameters"
        raise InvalidSpec(f"transformers refuses the training arguments ({names}): {_first_line(error)}") from error


def total_steps(parameters: Hyperparameters, examples: int) -> int:
    """Return the optimizer steps of all epochs; the last batch of an epoch may be smaller."""
    return parameters.epochs * math.ceil(examples / parameters.examples_per_step())


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


def _grouped_by_length() -> dict[str, Any]:
    """Batches of texts of about the same length: on short texts half of a batch would else be padding."""
    if "train_sampling_strategy" in training_argument_types():
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
