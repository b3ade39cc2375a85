"""metrics.json: every figure of a run for programs, without the points of its curves; NaN becomes null."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from luthier_trainer.publish.findings import Findings
from luthier_trainer.tasks.evaluation import Curve, Evaluation


def metrics_json(findings: Findings) -> str:
    """Return the file's text.

    `labels` to `curves` are of the evaluation examples; `test` has the same of the test split, and is null without one.
    """
    metrics = findings.metrics
    document = {
        "metrics": metrics,
        "missedGates": findings.missed_gates,
        **_evaluation(findings.evaluation),
        "baselines": {"untrained": _of(metrics, "untrained_"), "majority": _of(metrics, "baseline_majority_")},
        "test": {"metrics": _of(metrics, "test_"), **_evaluation(findings.test)} if findings.test else None,
        "steps": findings.steps,
        "bestStep": findings.best_step,
        "exports": [asdict(outcome) for outcome in findings.exports],
        "seconds": findings.seconds,
    }
    return json.dumps(_finite(document), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "intervals": evaluation.intervals,
        "resamples": evaluation.resamples,
        "labels": [asdict(row) for row in evaluation.labels],
        "entities": [asdict(row) for row in evaluation.entities],
        "confusionMatrix": {"labels": [row.label for row in evaluation.labels], "rows": evaluation.confusion},
        "calibration": asdict(evaluation.calibration) if evaluation.calibration else None,
        "curves": {"roc": _areas(evaluation.roc), "precisionRecall": _areas(evaluation.precision_recall)},
    }


def _areas(lines: Sequence[Curve]) -> dict[str, float]:
    return {line.label: line.area for line in lines}


def _of(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _finite(value: Any) -> Any:
    """Return the same without numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
