"""The names of all metrics that a run of a task produces, so that a gate on one that does not exist is refused early.

    eval_*                of the fine-tuned model on the evaluation examples
    test_*                the same on the test split, if there is one; it is never used for model selection
    untrained_*           of the same model before training
    baseline_majority_*   of always giving the most frequent answer, or the mean number

Needs no torch; the tasks compute them.
"""

import difflib

from luthier_api.training import TrainingSpec
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.tasks.interface import TaskModule
from luthier_trainer.tasks.registry import task_of

TRAINING = ("train_loss", "train_seconds", "train_examples_per_second")


def evaluation_metrics(task: TaskModule) -> tuple[str, ...]:
    """Return the metrics of an evaluation, which may pick the best weights."""
    return ("eval_loss", *(f"eval_{name}" for name in task.metrics))


def all_metrics(task: TaskModule) -> tuple[str, ...]:
    """Return everything that a run measures."""
    names = ("loss", *task.metrics)
    prefixes = ("eval_", "test_", "untrained_")
    return (
        *(prefix + name for prefix in prefixes for name in names),
        *(f"baseline_majority_{name}" for name in task.metrics),
        *TRAINING,
    )


def check_metric_names(spec: TrainingSpec) -> None:
    """Refuse metrics that no run produces, and gates on those that another attempt at the same run changes.

    Raises:
        InvalidSpec: naming the closest metrics.
    """
    task = task_of(spec.task)
    wanted = spec.hyperparameters.metric_for_best_model
    if wanted is not None and wanted not in evaluation_metrics(task):
        raise InvalidSpec(_unknown("hyperparameters.metricForBestModel", wanted, evaluation_metrics(task)))
    split = spec.dataset.effective_split()
    tested = spec.dataset.test is not None or (split is not None and split.test_fraction > 0)
    known = all_metrics(task)
    proposed = tuple(name for name in known if name not in TRAINING and (tested or not name.startswith("test_")))
    for gate in spec.evaluation.gates:
        if gate.metric not in known:
            raise InvalidSpec(_unknown("evaluation.gates", gate.metric, proposed))
        if gate.metric in TRAINING:
            raise InvalidSpec(
                f"evaluation.gates asks for {gate.metric!r}, which depends on how often a run was interrupted and not "
                "on its weights alone; use a metric of the evaluation, such as eval_loss."
            )
        if gate.metric.startswith("test_") and not tested:
            raise InvalidSpec(
                f"evaluation.gates asks for {gate.metric!r}, and there is no test data; set dataset.test or "
                "dataset.split.testFraction."
            )


def _unknown(field: str, name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=3) or list(known[:8])
    return f"{field} names the metric {name!r}, which no evaluation produces; use one of {', '.join(close)}."
