"""What is said of a published version: the result document and metrics.json."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from luthier_api.training import ExportFormat
from luthier_artifacts import Metadata, PublishedVersion, Registry, open_registry
from luthier_trainer.export.outcome import ExportOutcome
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.metrics_file import metrics_json
from luthier_trainer.publish.published import as_published
from luthier_trainer.tasks.evaluation import Calibration, CalibrationBin, Curve, Evaluation, LabelReport

pytestmark = pytest.mark.unit

METRICS = {
    "eval_f1_macro": 0.7,
    "test_f1_macro": 0.6,
    "untrained_f1_macro": 0.4,
    "baseline_majority_f1_macro": 0.3,
}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(f"file://{tmp_path}/registry", "sentiment")


def publish(registry: Registry, folder: Path, run_key: str, **metadata: Any) -> PublishedVersion:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    return registry.publish(folder, run_key, Metadata(**metadata))


def evaluation(f1: float) -> Evaluation:
    return Evaluation(
        metrics={"f1_macro": f1},
        intervals={"f1_macro": (f1 - 0.1, f1 + 0.1)},
        resamples=100,
        labels=[LabelReport("bad", 0.5, 0.5, f1, 4), LabelReport("good", 0.5, 0.5, f1, 6)],
        confusion=[[3, 1], [2, 4]],
        calibration=Calibration(0.1, [CalibrationBin(10, 0.8, 0.7)]),
        roc=[Curve("good", [(0.0, 0.0), (1.0, 1.0)], 0.75)],
    )


def findings(**fields: object) -> Findings:
    given: dict[str, object] = {
        "metrics": METRICS,
        "missed_gates": [],
        "evaluation": evaluation(0.7),
        "test": evaluation(0.6),
        "history": [],
        "steps": 9,
        "best_step": 6,
        "device": "the CPU",
        "precision": "fp32",
        "exports": [ExportOutcome(ExportFormat.SAFETENSORS, shipped=True)],
        "seconds": {"fit": 1.5},
    }
    return Findings(**(given | fields))  # type: ignore[arg-type]


def test_a_version_that_missed_a_gate_is_published_and_not_promotable(registry: Registry, tmp_path: Path) -> None:
    missed, key = "eval_f1 is 0.7 and must be at least 0.9.", "cd" * 32
    version = publish(registry, tmp_path / "a", key, promotable=False, gate_messages=[missed], metrics={"eval_f1": 0.7})
    published = as_published(version, key)
    assert (published.promotable, published.message, published.run_key) == (False, missed, key)
    assert (published.metrics, published.reused) == ({"eval_f1": "0.7"}, False)
    assert (published.version, published.digest) == (version.version, version.digest)
    passed = as_published(publish(registry, tmp_path / "b", "ef" * 32), "ef" * 32)
    assert (passed.promotable, passed.message) == (True, None)


def test_a_run_that_was_published_before_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    first, again = (as_published(publish(registry, tmp_path / name, "cd" * 32), "cd" * 32) for name in "ab")
    assert (again.version, again.reused) == (first.version, True)


def test_metrics_json_says_which_figures_are_whose() -> None:
    document = json.loads(metrics_json(findings()))
    assert document["metrics"]["eval_f1_macro"] == 0.7
    assert document["baselines"] == {"untrained": {"f1_macro": 0.4}, "majority": {"f1_macro": 0.3}}
    assert document["test"]["metrics"] == {"f1_macro": 0.6}
    assert [row["f1"] for row in document["labels"]] == [0.7, 0.7]
    assert [row["f1"] for row in document["test"]["labels"]] == [0.6, 0.6]
    assert document["confusionMatrix"] == {"labels": ["bad", "good"], "rows": [[3, 1], [2, 4]]}
    assert (document["steps"], document["bestStep"], document["curves"]["roc"]) == (9, 6, {"good": 0.75})
    assert json.loads(metrics_json(findings(test=None)))["test"] is None


def test_metrics_json_has_null_for_what_is_not_finite() -> None:
    document = json.loads(metrics_json(findings(metrics={"eval_loss": math.nan}, seconds={"fit": math.inf})))
    assert (document["metrics"]["eval_loss"], document["seconds"]["fit"]) == (None, None)
