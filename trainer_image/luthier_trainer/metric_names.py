"""The names of all metrics that a run produces, so that a gate on one that does not exist is refused beforehand.

Needs no torch; `evaluation` computes them, and a test holds the two together.
"""

import difflib

from luthier_api.training import TrainingSpec
from luthier_trainer.errors import InvalidSpec

# Of the fine-tuned model on the evaluation set, by `evaluation.classification_metrics`.
EVALUATION = (
    "eval_accuracy",
    "eval_f1_macro",
    "eval_f1_weighted",
    "eval_precision_macro",
    "eval_recall_macro",
    "eval_loss",
)
# What it is to be compared with: always saying the most frequent label, and the same model before training.
BASELINES = ("baseline_majority_accuracy", "untrained_accuracy", "untrained_f1_macro", "untrained_loss")
TRAINING = ("train_loss", "train_seconds", "train_examples_per_second")
ALL = EVALUATION + BASELINES + TRAINING


def check_metric_names(spec: TrainingSpec) -> None:
    """Refuse metrics that no run produces.

    Raises:
        InvalidSpec: naming the closest metrics.
    """
    wanted = spec.hyperparameters.metric_for_best_model
    if wanted not in EVALUATION:
        raise InvalidSpec(_unknown("hyperparameters.metricForBestModel", wanted, EVALUATION))
    for gate in spec.evaluation.gates:
        if gate.metric not in ALL:
            raise InvalidSpec(_unknown("evaluation.gates", gate.metric, ALL))


def _unknown(field: str, name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=3) or list(known)
    return f"{field} names the metric {name!r}, which no evaluation produces; use one of {', '.join(close)}."
