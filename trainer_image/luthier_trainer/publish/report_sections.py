"""What each section of the report shows, worked out from the findings; `report` lays it out. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier_api.base import decimal_text
from luthier_api.documents import FEATURE_TITLES, UNKNOWN_EDGES, ReferenceDocument
from luthier_api.training import GateOperator, Task, TrainingSpec
from luthier_trainer.publish import plots
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.plots import Plot, Series
from luthier_trainer.spec.hyperparameters import best_metric, greater_is_better
from luthier_trainer.tasks.evaluation import Curve, Evaluation, LabelReport, Mistake
from luthier_trainer.tasks.registry import task_of

# With more labels a matrix is a wall of numbers, and the pairs that are mixed up most say more.
MOST_MATRIX_LABELS = 20
PAIRS_SHOWN = 10
MISTAKES_SHOWN = 25
MISTAKE_CHARACTERS = 400
_ABBREVIATIONS = {"f1": "F1", "ece": "ECE", "mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R²", "auc": "AUC"}
_ABBREVIATIONS |= {"roc": "ROC", "mcc": "MCC", "pr": "PR"}
# Metrics without an upper bound: their bars are drawn to the longest of them, those of the others to 1.
_UNBOUNDED = ("loss", "mse", "rmse", "mae")
_SIGNS = {GateOperator.GTE: "≥", GateOperator.GT: ">", GateOperator.LTE: "≤", GateOperator.LT: "<"}

Interval = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """One value beside others; shares are of the longest bar."""

    name: str
    value: float
    share: float
    interval: Interval | None = None
    interval_shares: Interval | None = None


@dataclass(frozen=True)
class Headline:
    """The metric that picks the best weights, beside what needs no training."""

    metric: str
    value: float
    interval: Interval | None
    greater_is_better: bool
    bars: list[Bar]


@dataclass(frozen=True)
class GateRow:
    """A gate and what was measured."""

    metric: str
    required: str
    measured: float | None
    passed: bool


@dataclass(frozen=True)
class MetricRow:
    """A metric of an evaluation, and the same one of what needs no training."""

    name: str
    value: float
    interval: Interval | None
    untrained: float | None
    baseline: float | None


@dataclass(frozen=True)
class Pair:
    """Two labels that are mixed up."""

    expected: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class EvaluationSection:
    """One evaluation.

    Attributes:
        key: distinguishes its anchors from another evaluation's.
        metrics: those of the task, then the loss.
        labels: weakest first where there are many, else in the model's order.
        confusion: empty where it is too large to show; `pairs` then says what is mixed up.
        notes: what the plots leave out.
    """

    key: str
    title: str
    metrics: list[MetricRow]
    labels: list[LabelReport]
    entities: list[LabelReport]
    confusion: list[list[int]]
    matrix_labels: list[str]
    pairs: list[Pair]
    plots: list[Plot]
    notes: list[str]
    ece: float | None
    mistakes: list[Mistake]
    numbers: bool = False


def headline(spec: TrainingSpec, findings: Findings) -> Headline:
    """Return the metric that counts, with the baselines beside it."""
    task = task_of(spec.task)
    key = best_metric(spec.hyperparameters, task)
    name = key.removeprefix("eval_")
    metrics = findings.metrics
    named = {
        "this model": metrics.get(key),
        "the same model, untrained": metrics.get(f"untrained_{name}"),
        baseline_name(spec.task): metrics.get(f"baseline_majority_{name}"),
    }
    values = {what: value for what, value in named.items() if value is not None and math.isfinite(value)}
    interval = findings.evaluation.intervals.get(name)
    longest = max([0.0 if name in _UNBOUNDED else 1.0, *values.values(), *(interval or ())])

    def share(value: float) -> float:
        return min(1.0, max(0.0, value / longest)) if longest else 0.0

    bars = [
        Bar(what, value, share(value), interval, (share(interval[0]), share(interval[1])))
        if interval and what == "this model"
        else Bar(what, value, share(value))
        for what, value in values.items()
    ]
    better = greater_is_better(spec.hyperparameters, task)
    return Headline(metric_title(name), metrics.get(key, math.nan), interval, better, bars)


def gates(spec: TrainingSpec, metrics: Mapping[str, float]) -> list[GateRow]:
    """Return every gate with what was measured."""
    return [
        GateRow(
            gate.metric,
            f"{_SIGNS[gate.operator]} {decimal_text(gate.threshold)}",
            metrics.get(gate.metric),
            gate.metric in metrics and gate.passes(metrics[gate.metric]),
        )
        for gate in spec.evaluation.gates
    ]


def training_plots(spec: TrainingSpec, findings: Findings) -> list[Plot]:
    """Return the curves of everything that was logged."""
    task = task_of(spec.task)
    history = findings.history
    scores = [f"eval_{name}" for name in task.metrics if name not in task.errors]
    errors = [f"eval_{name}" for name in task.errors]
    best = findings.best_step
    losses = [_series(history, "loss", "training"), _series(history, "eval_loss", "evaluation", dots=True)]
    drawn = [
        ("Loss", losses, best, True),
        ("Metrics", [_series(history, name, dots=True) for name in scores], best, False),
        ("Errors (lower is better)", [_series(history, name, dots=True) for name in errors], best, True),
        ("Learning rate", [_series(history, "learning_rate")], None, True),
        ("Gradient norm", [_series(history, "grad_norm")], None, True),
        ("Examples per second", [_series(history, "examples_per_second")], None, True),
        ("Tokens per second", [_series(history, "tokens_per_second")], None, True),
    ]
    return [
        plots.over_steps(title, shown[: plots.MOST_LINES], best_step=marked, from_zero=from_zero)
        for title, lines, marked, from_zero in drawn
        if (shown := [line for line in lines if line.points])
    ]


def evaluation_section(
    key: Literal["eval", "test"], title: str, spec: TrainingSpec, evaluation: Evaluation, metrics: Mapping[str, float]
) -> EvaluationSection:
    """Return everything that was found of one evaluation."""
    drawn, notes = _plots(evaluation)
    names = [row.label for row in evaluation.labels]
    labels = evaluation.labels
    if len(labels) > MOST_MATRIX_LABELS:
        # A label without examples has no score that says anything.
        labels = sorted(labels, key=lambda row: (row.support == 0, row.f1))
    small = 0 < len(evaluation.confusion) <= MOST_MATRIX_LABELS
    return EvaluationSection(
        key=key,
        title=title,
        metrics=list(_metric_rows(key, evaluation, metrics)),
        labels=labels,
        entities=evaluation.entities,
        confusion=evaluation.confusion if small else [],
        matrix_labels=names,
        pairs=_pairs(names, evaluation.confusion),
        plots=drawn,
        notes=notes,
        ece=evaluation.calibration.ece if evaluation.calibration else None,
        mistakes=[_short(mistake) for mistake in evaluation.mistakes[:MISTAKES_SHOWN]],
        numbers=bool(evaluation.scatter),
    )


def reference_rows(reference: ReferenceDocument | None) -> list[tuple[str, str]]:
    """Return what a server measures drift against: of each feature its bins that hold texts, with their shares."""
    if reference is None:
        return []
    profile = reference.profile
    names = {
        "labels": [*reference.label_names, "others"],
        "confidence": [f"{bin_ / 10:.1f} to {(bin_ + 1) / 10:.1f}" for bin_ in range(len(profile.confidence))],
        "tokens": [f"up to {2**bin_}" for bin_ in range(len(profile.tokens))],
        "unknown": ["none", *(f"up to {edge:.0%}" for edge in UNKNOWN_EDGES[1:]), "more"],
    }
    rows = []
    for feature, title in FEATURE_TITLES.items():
        counts = getattr(profile, feature)
        if any(counts) and (feature != "unknown" or reference.unknown_token_id is not None):
            shares = zip(names[feature], counts, strict=True)
            rows.append((title, ", ".join(f"{name}: {count / sum(counts):.1%}" for name, count in shares if count)))
    return rows


def metric_title(name: str) -> str:
    """Return a metric's name for people: f1_macro becomes F1 macro."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in name.split("_"))


def _metric_rows(key: str, evaluation: Evaluation, metrics: Mapping[str, float]) -> Iterable[MetricRow]:
    names = list(evaluation.metrics)
    if f"{key}_loss" in metrics and "loss" not in names:
        names.append("loss")
    for name in names:
        measured = evaluation.metrics.get(name, metrics.get(f"{key}_{name}", math.nan))
        # The baselines were measured on the evaluation examples, so beside the test's figures they would mislead.
        beside = metrics if key == "eval" else {}
        yield MetricRow(
            metric_title(name),
            measured,
            evaluation.intervals.get(name),
            beside.get(f"untrained_{name}"),
            beside.get(f"baseline_majority_{name}"),
        )


def _plots(evaluation: Evaluation) -> tuple[list[Plot], list[str]]:
    drawn: list[Plot] = []
    notes: list[str] = []
    if evaluation.calibration:
        drawn.append(plots.reliability(evaluation.calibration))
    if evaluation.roc:
        drawn.append(plots.curves("roc", _weakest(evaluation.roc)))
    if evaluation.precision_recall:
        drawn.append(plots.curves("precision-recall", _weakest(evaluation.precision_recall)))
    if max(len(evaluation.roc), len(evaluation.precision_recall)) > plots.MOST_LINES:
        notes.append(f"Curves of the {plots.MOST_LINES} labels with the smallest area.")
    if evaluation.scatter:
        drawn += [plots.scatter(evaluation.scatter), plots.errors(evaluation.scatter)]
    return drawn, notes


def _weakest(lines: Sequence[Curve]) -> list[Curve]:
    """Return as many curves as a plot can show, in their order."""
    kept = sorted(range(len(lines)), key=lambda index: lines[index].area)[: plots.MOST_LINES]
    return [lines[index] for index in sorted(kept)]


def _pairs(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[Pair]:
    found = [
        Pair(names[true], names[predicted], count, count / sum(row))
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(found, key=lambda pair: -pair.count)[:PAIRS_SHOWN]


def _short(mistake: Mistake) -> Mistake:
    text = mistake.text
    if len(text) > MISTAKE_CHARACTERS:
        text = text[:MISTAKE_CHARACTERS].rstrip() + "…"
    return Mistake(text, mistake.expected, mistake.predicted, mistake.confidence)


def _series(history: Sequence[dict[str, Any]], key: str, name: str | None = None, *, dots: bool = False) -> Series:
    points = [(float(entry["step"]), float(entry[key])) for entry in history if key in entry]
    points = [point for point in points if math.isfinite(point[1])]
    return Series(name or metric_title(key.removeprefix("eval_")), points, dots)


def baseline_name(task: Task) -> str:
    """Return what `baseline_majority_*` measures."""
    return task_of(task).baseline_name
