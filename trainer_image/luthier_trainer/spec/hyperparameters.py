"""Translates spec.hyperparameters into transformers.TrainingArguments, one line for each field.

Imports transformers, so only *train* uses it. Values that a user gives in spec.trainingArguments come on top;
`arguments` has made sure that they are not said twice.
"""

import math
from pathlib import Path

from transformers import TrainingArguments

from luthier_api.training import Hyperparameters, Precision, TrainingSpec
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.precision import Device
from luthier_trainer.spec.training_arguments import parse_training_arguments
from luthier_trainer.tasks.interface import TaskModule

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
    passed = parse_training_arguments(spec.training_arguments)
    steps = passed.get("max_steps", 0) if passed.get("max_steps", 0) > 0 else total_steps(parameters, examples)
    given = {
        "output_dir": str(folder),
        "num_train_epochs": parameters.epochs,
        # A batch of the Trainer is a whole optimizer step (see `finetuner`), so these two say nothing about memory.
        "per_device_train_batch_size": parameters.examples_per_step(),
        "gradient_accumulation_steps": 1,
        "learning_rate": float(parameters.learning_rate),
        "lr_scheduler_type": parameters.scheduler if parameters.scheduler != "constant" else "constant_with_warmup",
        "warmup_steps": warmup_steps(parameters, steps),
        "weight_decay": float(parameters.weight_decay),
        "adam_beta1": float(parameters.adam_beta1),
        "adam_beta2": float(parameters.adam_beta2),
        "adam_epsilon": float(parameters.adam_epsilon),
        "max_grad_norm": float(parameters.max_grad_norm),
        "seed": parameters.seed,
        "bf16": precision is Precision.BF16,
        "fp16": precision is Precision.FP16,
        "use_cpu": not device.is_gpu,
        "dataloader_pin_memory": device.is_gpu,
        # A GPU waits for no batch; a CPU has nothing to gain from a second process.
        "dataloader_num_workers": 2 if device.is_gpu else 0,
        # By steps also where it is once an epoch, so that a checkpoint never lies between a step and its evaluation.
        "eval_strategy": "steps",
        "eval_steps": eval_steps(parameters, examples),
        # Checkpoints to resume from (see `fitting`); the best weights are kept by `best`.
        "save_strategy": "steps",
        "save_steps": spec.checkpoint.every_steps,
        "logging_strategy": "steps",
        "logging_steps": max(1, steps // LOGS_PER_RUN),
        "logging_first_step": True,
        # A loss that is not finite ends the run (see `train`); the filter would hide it.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        **passed,
    }
    try:
        return TrainingArguments(**given)
    except (ValueError, TypeError, ImportError, KeyError) as error:
        names = ", ".join(sorted(spec.training_arguments)) or "hyperparameters"
        raise InvalidSpec(f"transformers refuses the training arguments ({names}): {_first_line(error)}") from error


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
