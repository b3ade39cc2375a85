"""report.html and README.md: made of what each task's own evaluation finds, and looked at by a real browser."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from luthier_api.documents import Origin, Resolved, RunDocument
from luthier_api.training import ExportFormat, Task
from luthier_trainer.export.outcome import ExportOutcome
from luthier_trainer.formats.prepared import Part, PreparedData, PreparedFolder
from luthier_trainer.formats.quality_report import (
    FileQuality,
    LabelCount,
    Leakage,
    Outliers,
    QualityReport,
    TokenLengths,
)
from luthier_trainer.publish.artifact import environment
from luthier_trainer.publish.card import write_card
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.metrics_file import metrics_json
from luthier_trainer.publish.report import write_report
from luthier_trainer.publish.report_sections import MISTAKE_CHARACTERS, metric_title
from luthier_trainer.spec.metric_gates import missed_gates
from luthier_trainer.tasks import text_classification
from luthier_trainer.tasks.evaluation import Mistake
from luthier_trainer.tasks.interface import Predictions
from luthier_trainer.tasks.registry import task_of
from support.browser import Browser

pytestmark = pytest.mark.integration

HOSTILE = '<script>document.title = "taken over"</script><img src="http://198.18.0.1/x.png" onerror="alert(1)">'
TOPICS = ["arts", "business", "health", "politics", "science", "sport", "technology", "travel"]


class Made:
    """A finished run of one task, with predictions that are right more often than not."""

    def __init__(self, task: Task, labels: list[str], *, texts: int = 200, gate: str = "0.5", seed: int = 0) -> None:
        self.task, self.labels = task_of(task), labels
        self._random = np.random.default_rng(seed)
        spec = {
            "task": task.value,
            "model": {"uri": "hf://bert-base/uncased", "revision": "3c1e5a9"},
            "dataset": {"train": {"uri": "s3://data/reviews/train.csv"}},
            "evaluation": {"gates": [{"metric": self.task.best_metric, "threshold": gate}]},
            "tracking": {"mlflow": {"uri": "https://user:passphrase@mlflow.example"}},
            "export": ["safetensors", "onnx", "onnx-int8"],
            "output": {"name": "sentiment", "uri": "s3://models/"},
        }
        if self.task.best_metric.endswith("mse"):
            spec["evaluation"] = {"gates": [{"metric": "eval_r2", "threshold": gate}]}
        digest = "sha256:" + "ab" * 32
        self.run = RunDocument(
            spec=spec,
            image="registry.example/luthier-trainer@" + digest,
            origin=Origin(name="sentiment", namespace="team-a", uid="1", generation=3, run="sentiment-1"),
            resolved=Resolved(
                run_key="cd" * 32, data_key="ef" * 32, model_digest=digest, dataset_digest=digest, model_revision="3c1e"
            ),
        )
        train, held_out, test = (self._part(count) for count in (texts * 4, texts, texts // 2))
        self.prepared = PreparedFolder(self._data(train, held_out, test), self._quality(), train, held_out, test)
        self.findings = self._findings()

    def write(self, path: Path) -> Path:
        write_report(path, self.run, self.prepared, self.findings, environment() | {"device": "CPU"})
        return path

    def _part(self, texts: int) -> Part:
        ids = [[2, *range(5, 5 + int(length)), 3] for length in self._random.integers(4, 30, texts)]
        words = ["the", "film", "was", "a", "long", "quiet", "story", "that", "nobody", "expected", "to", "like"]
        said = [" ".join(self._random.choice(words, 14)) for _ in range(texts)]
        said[: min(3, texts)] = [HOSTILE, "unbroken" * 200, "naïve café — 日本語のテキスト"][: min(3, texts)]
        return Part.of(ids, [self._target(len(row)) for row in ids], self.task.target_type, texts=said)

    def _target(self, length: int) -> Any:
        count = len(self.labels)
        match self.task.name:
            case Task.TEXT_CLASSIFICATION:
                return (
                    int(min(self._random.geometric(0.35) - 1, count - 1))
                    if count < 20
                    else self._random.integers(count)
                )
            case Task.MULTI_LABEL:
                return sorted({int(i) for i in self._random.integers(0, count, 2)})
            case Task.REGRESSION:
                return float(self._random.normal(3, 1))
        return [-100, *(int(i) for i in self._random.integers(0, count, length - 2)), -100]

    def predictions(self, part: Part, skill: float) -> Predictions:
        targets = self.task.dense_targets(part, len(self.labels))
        if self.task.name is Task.REGRESSION:
            logits = skill * targets[:, None] + (1 - skill) * 3 + self._random.normal(0, 0.3, (len(targets), 1))
        else:
            one_hot = targets if targets.ndim == 2 else np.eye(len(self.labels))[targets]
            logits = skill * 4 * (one_hot - 0.5) + self._random.normal(0, 1.2, one_hot.shape)
        rows = np.ones(len(part), dtype=np.int64)
        if self.task.per_token:
            rows = np.array([sum(t != -100 for t in part.target(i)) for i in range(len(part))])
        return Predictions(logits, targets, rows, loss=0.9 - 0.5 * skill)

    def _findings(self) -> Findings:
        task, held_out = self.task, self.prepared.held_out
        untrained, trained = self.predictions(held_out, 0.05), self.predictions(held_out, 0.8)
        evaluation = task.evaluate(trained, held_out, self.labels, seed=1)
        assert self.prepared.test
        test = task.evaluate(self.predictions(self.prepared.test, 0.75), self.prepared.test, self.labels, seed=1)
        metrics = {"eval_loss": 0.31, "test_loss": 0.35, "train_loss": 0.4, "train_seconds": 4021.0}
        for prefix, found in (
            ("eval_", evaluation.metrics),
            ("test_", test.metrics),
            ("untrained_", task.measure(untrained, self.labels)),
            ("baseline_majority_", task.baseline(self.prepared.train, held_out, self.labels)),
        ):
            metrics |= {prefix + name: value for name, value in found.items()}
        return Findings(
            metrics=metrics,
            missed_gates=missed_gates(self.run.spec.evaluation, metrics),
            evaluation=evaluation,
            test=test,
            history=self._history(evaluation.metrics),
            steps=600,
            best_step=400,
            device="NVIDIA H100 80GB HBM3",
            precision="bf16",
            exports=[
                ExportOutcome(ExportFormat.SAFETENSORS, shipped=True),
                ExportOutcome(ExportFormat.ONNX, shipped=True, difference=3.1e-6),
                ExportOutcome(ExportFormat.ONNX_INT8, shipped=False, loss=0.031, message="It is worse by 0.031."),
            ],
            seconds={"download": 3.2, "load": 1.1, "baseline": 8.0, "fit": 4021.0, "evaluate": 9.0, "export": 31.5},
        )

    def _history(self, final: dict[str, float]) -> list[dict[str, Any]]:
        history: list[dict[str, Any]] = []
        for step in range(10, 601, 10):
            loss = 0.25 + 0.5 * math.exp(-step / 150) + float(self._random.normal(0, 0.02))
            rate = 2e-5 * min(step / 40, (600 - step) / 560)
            logged = {"loss": loss, "learning_rate": rate, "grad_norm": 1 + 3 * math.exp(-step / 80)}
            speed = {"examples_per_second": 900 + step % 70, "tokens_per_second": 24000 + 20 * (step % 70)}
            history.append({"step": step, "epoch": step / 200, **logged, **speed})
            if step % 100 == 0:
                grown = {f"eval_{name}": value * (1 - 0.3 * math.exp(-step / 150)) for name, value in final.items()}
                history.append(
                    {"step": step, "epoch": step / 200, "eval_loss": loss + 0.03, "eval_runtime": 2, **grown}
                )
        return history

    def _data(self, train: Part, held_out: Part, test: Part) -> PreparedData:
        return PreparedData(
            layout_version=2,
            labels=self.labels,
            max_length=128,
            pad_token_id=0,
            train_examples=len(train),
            eval_examples=len(held_out),
            test_examples=len(test),
        )

    def _quality(self) -> QualityReport:
        cut = {"cut": 21, "cut_fraction": 0.013, "max_length": 128}
        lengths = TokenLengths(mean=23.4, min=3, p50=21, p90=40, p95=52, p99=90, max=412, **cut)
        file = {"missing": 3, "missing_fraction": 0.0015, "duplicates": 20, "duplicate_fraction": 0.01}
        named = [] if self.task.name is Task.REGRESSION else self.labels
        return QualityReport(
            files=[FileQuality(name="train.csv", rows=2000, texts=1980, conflicting_texts=4, **file)],
            examples={"train": 1600, "eval": 400},
            labels={label: LabelCount(train=100, eval=25) for label in named},
            imbalance_ratio=3.2,
            leakage=Leakage(evaluated=400, leaked=2, left_out_of_train=2),
            scripts={"Latin": 0.991, "Cyrillic": 0.009},
            tokens={"train": lengths, "eval": lengths},
            outliers={"train": Outliers(shorter_than=2, longer_than=300, short=0, long=2, places=["train.csv row 7"])},
            warnings=["4 texts of train.csv have more than one label."],
        )


Runs = Callable[[str], Made]


@pytest.fixture(scope="module")
def made() -> Runs:
    """The finished run of a kind, made once."""
    thousand = [f"label-{number:04d} with a long name of its own" for number in range(1000)]

    @cache
    def get(kind: str) -> Made:
        match kind:
            case "binary":
                return Made(Task.TEXT_CLASSIFICATION, ["negative", "positive"])
            case "topics":
                return Made(Task.TEXT_CLASSIFICATION, TOPICS, gate="0.99")
            case "thousand":
                with pytest.MonkeyPatch.context() as patch:
                    # A thousand resamples of a thousand labels take long, and their intervals look the same.
                    patch.setattr(text_classification, "resamples_for", lambda passes: 20)
                    return Made(Task.TEXT_CLASSIFICATION, thousand, texts=300)
            case "multi-label":
                return Made(Task.MULTI_LABEL, TOPICS[:5])
            case "regression":
                return Made(Task.REGRESSION, ["score"])
        return Made(Task.TOKEN_CLASSIFICATION, ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], texts=60)

    return get


KINDS = ["binary", "topics", "thousand", "multi-label", "regression", "tokens"]
VIEWS = [("light", 1180, False), ("dark", 1180, False), ("dark", 390, True), ("light", 320, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_s_report_opens_without_a_complaint_or_a_request_and_fits_a_phone(
    made: Runs, browser: Browser, tmp_path: Path, kind: str
) -> None:
    path = made(kind).write(tmp_path / "report.html")
    backgrounds = set()
    for scheme, width, phone in VIEWS:
        page = browser.open(path.as_uri(), width=width, scheme=scheme, phone=phone)
        assert (page.requests, page.complaints) == ([path.as_uri()], [])
        assert page.evaluate("document.title") == "sentiment: training report"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Nothing reaches over the edge but what scrolls in a box of its own.
        assert page.evaluate(BEYOND) == []
        assert page.evaluate("document.querySelectorAll('figure svg').length") >= 6
        assert page.evaluate(NAMELESS) == 0
        assert page.evaluate(COLOURLESS) == 0
        backgrounds.add((scheme, page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert len(backgrounds) == 2, "light and dark each have a background of their own"


# What is wider than the page, outside of boxes that scroll.
BEYOND = """[...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll') && !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))"""
NAMELESS = "[...document.querySelectorAll('svg')].filter(e => !e.getAttribute('aria-label')).length"
# Lines whose colour the page does not know.
COLOURLESS = """[...document.querySelectorAll('svg path[clip-path]')]
  .filter(e => getComputedStyle(e).stroke === 'none' && getComputedStyle(e).fill === 'none').length"""


def test_what_stands_in_the_data_is_shown_and_never_run(made: Runs, browser: Browser, tmp_path: Path) -> None:
    run = made("binary")
    wrong = [Mistake(HOSTILE, "<b>negative</b>", "positive", 0.99), Mistake("y" * 5000, "negative", "positive", 0.98)]
    evaluation = replace(run.findings.evaluation, mistakes=wrong)
    path = tmp_path / "report.html"
    write_report(path, run.run, run.prepared, replace(run.findings, evaluation=evaluation), environment())
    page = browser.open(path.as_uri(), width=390, phone=True)
    assert (page.requests, page.complaints) == ([path.as_uri()], [])
    assert page.evaluate("document.title") == "sentiment: training report"
    shown = page.evaluate("[...document.querySelectorAll('#eval .mistakes q')].map(e => e.textContent)")
    assert shown[0] == HOSTILE
    assert len(shown[1]) == MISTAKE_CHARACTERS + 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Where MLflow is, and the password in its address, is not for who reads the report.
    assert "passphrase" not in path.read_text()


def test_the_headline_says_what_counts_and_which_gate_was_missed(made: Runs, browser: Browser, tmp_path: Path) -> None:
    run = made("topics")
    page = browser.open(run.write(tmp_path / "report.html").as_uri(), width=1180)
    said = page.evaluate("document.querySelector('header').innerText")
    found = run.findings
    low, high = found.evaluation.intervals["f1_macro"]
    for each in (
        "Not promotable",
        f"{found.metrics['eval_f1_macro']:.4f}",
        f"{low:.3f} – {high:.3f}",
        f"{found.metrics['untrained_f1_macro']:.4f}",
        f"{found.metrics['baseline_majority_f1_macro']:.4f}",
        *found.missed_gates,
    ):
        assert each in said
    cells = page.evaluate("[...document.querySelectorAll('#eval .matrix td')].map(e => e.textContent)")
    assert [int(c) for c in cells if c.isdigit()] == [n for row in found.evaluation.confusion for n in row]
    assert "this model" in made("binary").write(tmp_path / "binary.html").read_text()
    assert "Promotable: every gate passed" in (tmp_path / "binary.html").read_text()


def test_the_same_run_gives_the_same_report_to_the_byte(made: Runs, tmp_path: Path) -> None:
    first, second = (made("binary").write(tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_a_thousand_labels_keep_their_scores_and_the_file_its_size(made: Runs, tmp_path: Path) -> None:
    path = made("thousand").write(tmp_path / "report.html")
    text = path.read_text()
    assert path.stat().st_size < 2_000_000
    assert text.count("with a long name of its own") > 1000
    assert "The weakest of 1\u2009000 labels first." in text
    assert 'class="matrix"' not in text and "Mixed up most often" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_card_is_one_that_a_hub_reads(made: Runs, tmp_path: Path, kind: str) -> None:
    run = made(kind)
    write_card(tmp_path, run.run, run.prepared, run.findings)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.base_model == "bert-base/uncased"
    assert card.data.license is None
    assert card.data.pipeline_tag == ("token-classification" if kind == "tokens" else "text-classification")
    results = {(each.dataset_split, each.metric_name): each.metric_value for each in card.data.eval_results}
    name = run.task.best_metric.removeprefix("eval_")
    assert results["evaluation", metric_title(name)] == pytest.approx(run.findings.metrics[f"eval_{name}"], abs=1e-6)
    assert results["test", metric_title(name)] == pytest.approx(run.findings.metrics[f"test_{name}"], abs=1e-6)
    assert f"from transformers import {run.task.auto_class}, AutoTokenizer" in card.text
    assert "4 texts of train.csv have more than one label." in card.text
    assert "was not shipped" in card.text
    # Every row of a table has as many cells as its head, whatever stands in the data.
    for table in re.findall(r"(?:^\|.*\n)+", card.text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table


def test_metrics_json_keeps_its_keys_and_says_how_sure_they_are(made: Runs) -> None:
    run = made("binary")
    broken = replace(run.findings, metrics=run.findings.metrics | {"eval_loss": math.nan})
    found = json.loads(metrics_json(broken), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["metrics"]["eval_loss"] is None
    assert {"metrics", "missedGates", "labels", "confusionMatrix", "steps", "bestStep", "exports", "seconds"} <= set(
        found
    )
    assert found["intervals"]["accuracy"] == list(run.findings.evaluation.intervals["accuracy"])
    assert found["calibration"]["ece"] == run.findings.evaluation.calibration.ece
    assert set(found["curves"]["roc"]) <= {"negative", "positive"}
    assert found["baselines"]["majority"]["accuracy"] == run.findings.metrics["baseline_majority_accuracy"]
    assert found["test"]["metrics"]["accuracy"] == run.findings.metrics["test_accuracy"]


def test_a_real_run_leaves_report_card_and_event_files_in_the_artifact(
    bench: Any, tiny_models: Callable[[str], Path], reviews: Any, browser: Browser
) -> None:
    model = bench.put_folder("base", tiny_models("bert"))
    document = bench.document(model=model, train=bench.put_csv("train.csv", reviews[:160]))
    document["spec"]["dataset"]["split"] = {"fraction": "0.2", "testFraction": "0.1"}
    document["spec"]["hyperparameters"]["evalSteps"] = 2
    document["spec"]["export"] = ["safetensors"]
    answer = bench.run("run", document)
    assert answer.code == 0, answer.log
    folder = bench.folder / "artifact"
    bench.registry.download(answer.result.published.version, folder)
    page = browser.open((folder / "report.html").as_uri(), width=390, phone=True, scheme="dark")
    assert (len(page.requests), page.complaints) == (1, [])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    titles = page.evaluate("[...document.querySelectorAll('#training figcaption')].map(e => e.textContent)")
    assert {"Loss", "Metrics", "Learning rate", "Gradient norm", "Examples per second"} <= set(titles)
    assert page.evaluate("document.querySelector('#test') !== null")
    assert ModelCard.load(folder / "README.md").data.model_name == "sentiment"
    scalars = EventAccumulator(str(folder / "tensorboard")).Reload().Tags()["scalars"]
    assert {"train/loss", "eval/loss", "final/eval_accuracy"} <= set(scalars)
