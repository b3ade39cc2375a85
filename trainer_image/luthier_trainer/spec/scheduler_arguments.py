"""Checks trainingArguments.lr_scheduler_kwargs against the scheduler that the spec chooses.

transformers hands them to a function as they are, which ends the training with a TypeError, after a GPU was given. What
the function takes is read from its source, because *prepare* has no torch.
"""

from typing import Any

from luthier_api.training import TrainingSpec
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.training_arguments import parse_training_arguments
from luthier_trainer.spec.transformers_source import scheduler_parameters

_NAME = "lr_scheduler_kwargs"
# `polynomial` ends there unless told otherwise, and refuses to begin below it.
_DEFAULT_LR_END = 1e-7


def check_scheduler_arguments(spec: TrainingSpec) -> None:
    """Check the arguments.

    Raises:
        InvalidSpec: if the scheduler does not take one, or not its value.
    """
    scheduler, given = spec.hyperparameters.scheduler, parse_training_arguments(spec.training_arguments).get(_NAME)
    if given is not None and not isinstance(given, dict):
        raise InvalidSpec(f'trainingArguments.{_NAME} must be a JSON object, such as {{"num_cycles": 0.5}}.')
    arguments: dict[str, Any] = given or {}
    # The learning rate of `constant` has nothing that could be set. last_epoch resumes, which the checkpoint does.
    known = set() if scheduler == "constant" else scheduler_parameters(scheduler) - {"last_epoch"}
    for name, value in arguments.items():
        if name not in known:
            takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise InvalidSpec(
                f"trainingArguments.{_NAME} has {name!r}, which hyperparameters.scheduler {scheduler} does not take; "
                f"{takes}."
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidSpec(f"trainingArguments.{_NAME}.{name} is {value!r} and must be a number.")
    end = arguments.get("lr_end", _DEFAULT_LR_END)
    if scheduler == "polynomial" and end >= spec.hyperparameters.learning_rate:
        raise InvalidSpec(
            f"hyperparameters.scheduler polynomial ends at a learning rate of {end}, which is not below learningRate = "
            f"{spec.hyperparameters.learning_rate}; set lr_end in trainingArguments.{_NAME}."
        )
