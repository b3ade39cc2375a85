"""Settings that cannot take effect in as few steps as a run has: a tutorial's numbers on a small file, for instance.

Nothing here is wrong enough to be refused. `prepare` tells it once it knows how many examples there are. Pure.
"""

from luthier_api.training import Checkpoint, TrainingSpec
from luthier_trainer.spec.hyperparameters import eval_steps, total_steps, warmup_steps

# Further fields of TrainingArguments that count steps.
_STEP_ARGUMENTS = ("logging_steps", "eval_delay")


def ineffective_settings(spec: TrainingSpec, examples: int) -> list[str]:
    """Return a sentence for each setting that has no effect, or far too much, on this many training examples."""
    parameters, found = spec.hyperparameters, []
    most = _integer(spec.training_arguments.get("max_steps"))
    steps = most if most > 0 else total_steps(parameters, examples)
    run = f"the run has {steps} step{'s' if steps > 1 else ''}"

    warmup = warmup_steps(parameters, steps)
    if 2 * warmup > steps and (parameters.warmup_steps or parameters.warmup_ratio):
        field = "warmupSteps" if parameters.warmup_steps else "warmupRatio"
        what = f"the learning rate gets no higher than {min(1, steps / warmup):.0%} of learningRate"
        if warmup < steps:
            what = f"{warmup} of them train below learningRate"
        value = parameters.warmup_steps or parameters.warmup_ratio
        found.append(f"hyperparameters.{field} = {value} and {run}, so that {what}; lower it, or leave it out.")

    if parameters.eval_steps and parameters.eval_steps >= steps:
        found.append(
            f"hyperparameters.evalSteps = {parameters.eval_steps} and {run}, so that only its end is evaluated and the "
            "best weights are the last ones; lower it, or leave it out to evaluate once an epoch."
        )
    if stopping := parameters.early_stopping:
        evaluations = -(-steps // eval_steps(parameters, examples))
        if evaluations <= stopping.patience + 1:
            found.append(
                f"hyperparameters.earlyStopping.patience = {stopping.patience} and the run has {evaluations} "
                f"evaluation{'s' if evaluations > 1 else ''}, so that it never stops early; lower one of "
                "patience and evalSteps."
            )
    if parameters.examples_per_step() > examples:
        found.append(
            f"An optimizer step uses {parameters.examples_per_step()} examples and there are {examples}, so that an "
            "epoch is one step; lower batchSize or gradientAccumulationSteps."
        )
    every = spec.checkpoint.every_steps
    if every >= steps and every != Checkpoint().every_steps:
        found.append(
            f"checkpoint.everySteps = {every} and {run}, so that it begins anew if its pod is lost at once; lower it."
        )
    for name in _STEP_ARGUMENTS:
        if (value := _integer(spec.training_arguments.get(name))) > steps:
            found.append(f"trainingArguments.{name} = {value} and {run}, so that it has no effect; lower it.")
    return found


def _integer(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0
