"""Translates spec.hyperparameters into transformers.TrainingArguments, one line for each field.

Values that a user gives in spec.trainingArguments come on top; `spec.training_arguments` has made sure that nothing is
set twice.
"""

from pathlib import Path

from transformers import TrainingArguments

from luthier_api.training import Precision, TrainingSpec
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.hyperparameters import eval_steps, total_steps, warmup_steps
from luthier_trainer.spec.precision import Device
from luthier_trainer.spec.training_arguments import parse_training_arguments
from luthier_trainer.tasks.interface import TaskModule

LOGS_PER_RUN = 25


def trainer_arguments(
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
        # Checkpoints to resume from (see `checkpointing.fit`); the best weights are kept by `best_weights`.
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
