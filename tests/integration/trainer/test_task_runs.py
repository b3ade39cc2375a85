"""Every task learns what its data says, is judged on examples that chose nothing, and loads in plain transformers."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from luthier_api.documents import Result
from luthier_api.training import Hyperparameters, Task
from luthier_trainer.cli import main
from luthier_trainer.spec.hyperparameters import greater_is_better
from luthier_trainer.spec.metric_names import all_metrics, evaluation_metrics
from luthier_trainer.tasks.registry import task_of

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]
Row = dict[str, Any]

EXAMPLES = 450
GOOD, BAD = ["good", "great", "love"], ["bad", "problem", "poor"]
THINGS = {"phone": "device", "battery": "power"}
FILLERS = ["the", "it", "is", "and", "this", "was", "a", "of"]


@dataclass(frozen=True)
class Form:
    """Data of one task.

    Attributes:
        task: the task.
        row: an example, all of whose label can be read from the text.
        metric: tells whether it was learned.
        least: what the metric must pass, and fall below where it is an error, as neither baseline does.
        columns: further names of columns.
    """

    task: Task
    row: Callable[[random.Random], Row]
    metric: str
    least: float
    columns: dict[str, str] = field(default_factory=dict)


def sentiment(draw: random.Random) -> Row:
    """One of three labels."""
    label = draw.choice(["good", "bad", "none"])
    words = draw.choices(FILLERS, k=draw.randint(2, 6))
    if label != "none":
        words.append(draw.choice(GOOD if label == "good" else BAD))
    return {"text": shuffled(draw, words), "label": label}


def pair(draw: random.Random) -> Row:
    """Whether the second text is good; the first says nothing."""
    label = draw.random() < 0.5
    first = shuffled(draw, [*draw.choices(FILLERS, k=3), draw.choice(GOOD + BAD)])
    return {"text": first, "other": draw.choice(GOOD if label else BAD), "label": "yes" if label else "no"}


def things(draw: random.Random) -> Row:
    """Any of two labels, none included."""
    there = [word for word in THINGS if draw.random() < 0.4]
    return {"text": shuffled(draw, [*draw.choices(FILLERS, k=4), *there]), "label": [THINGS[word] for word in there]}


def score(draw: random.Random) -> Row:
    """How many good words, less the bad ones."""
    good, bad = draw.randint(0, 3), draw.randint(0, 3)
    words = draw.sample(GOOD, good) + draw.sample(BAD, bad) + draw.choices(FILLERS, k=2)
    return {"text": shuffled(draw, words), "label": (good - bad) / 2}


def names(draw: random.Random) -> Row:
    """A thing is an entity; so is `of` after it."""
    words, labels = [], []
    for _ in range(draw.randint(2, 5)):
        if draw.random() < 0.4:
            words += [draw.choice(list(THINGS)), "of"]
            labels += ["B-THING", "I-THING"]
        else:
            words.append(draw.choice([*FILLERS, *GOOD]))
            labels.append("O")
    return {"text": words, "label": labels}


def shuffled(draw: random.Random, words: list[str]) -> str:
    draw.shuffle(words)
    return " ".join(words)


FORMS = {
    "classes": Form(Task.TEXT_CLASSIFICATION, sentiment, "f1_macro", 0.8),
    "pairs": Form(Task.TEXT_CLASSIFICATION, pair, "f1_macro", 0.8, {"textPairColumn": "other"}),
    "multi-label": Form(Task.MULTI_LABEL, things, "f1_macro", 0.8),
    "regression": Form(Task.REGRESSION, score, "mse", 0.25),
    "words": Form(Task.TOKEN_CLASSIFICATION, names, "f1_entities", 0.8),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_task_is_learned_judged_and_loaded(
    form: Form, tmp_path: Path, tiny_models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(1)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(form.row(draw)) for _ in range(EXAMPLES)))
    task = task_of(form.task)
    beyond = {"operator": "LTE", "threshold": "-9"} if form.metric in task.errors else {"threshold": "9"}
    published, folder = trained(
        tmp_path,
        {
            "task": form.task,
            "model": {"uri": tiny_models("bert").as_uri()},
            "dataset": {
                "train": {"uri": (tmp_path / "rows.jsonl").as_uri(), **form.columns},
                "split": {"fraction": "0.15", "testFraction": "0.15"},
                "preprocessing": {"maxLength": 32, "dropDuplicates": False},
            },
            "hyperparameters": {"epochs": 5, "batchSize": 8, "learningRate": "3e-3"},
            "evaluation": {"gates": [{"metric": "test_" + form.metric, **beyond}]},
            "output": {"name": "m", "uri": (tmp_path / "registry").as_uri()},
            "export": ["safetensors"],
        },
        capsys,
    )

    metrics = {name: float(value) for name, value in published.metrics.items()}
    assert metrics.keys() == set(all_metrics(task))
    assert not published.promotable and f"test_{form.metric} is " in published.message
    for part in ("eval_", "test_"):
        reached, baseline, untrained = (metrics[p + form.metric] for p in (part, "baseline_majority_", "untrained_"))
        if form.metric in task.errors:
            assert reached < form.least < min(baseline, untrained)
        else:
            assert reached > form.least > max(baseline, untrained)

    model = getattr(transformers, task.auto_class).from_pretrained(folder).eval()
    assert model.config.problem_type == task.problem_type
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode("the battery of this great sound").ids])).logits[0]
    if form.task is Task.MULTI_LABEL:
        assert {model.config.id2label[i] for i in range(2) if logits[i] > 0} == {"power"}
    if form.task is Task.TOKEN_CLASSIFICATION:
        tags = [model.config.id2label[int(i)] for i in logits.argmax(dim=-1)[1:-1]]
        assert tags[:5] == ["O", "B-THING", "I-THING", "O", "O"]


def trained(folder: Path, spec: Row, capsys: pytest.CaptureFixture[str]) -> tuple[Any, Path]:
    document = folder / "run.json"
    document.write_text(json.dumps({"spec": spec}))
    code = main([str(document), "--workspace", str(folder / "workspace"), "--port", "0"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    published = Result.from_json(captured.out).published
    assert published is not None
    return published, Path(published.uri.removeprefix("file://"))


def test_the_best_weights_of_words_may_be_those_that_find_most_entities(
    tmp_path: Path, tiny_models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a table of text, with labels that white space separates."""
    draw = random.Random(2)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([" ".join(row["text"]), " ".join(row["label"])] for row in (names(draw) for _ in range(120)))
    published, folder = trained(
        tmp_path,
        {
            "task": "token-classification",
            "model": {"uri": tiny_models("distilbert").as_uri()},
            "dataset": {"train": {"uri": (tmp_path / "rows.csv").as_uri()}, "preprocessing": {"maxLength": 16}},
            "hyperparameters": {"epochs": 3, "learningRate": "2e-3", "metricForBestModel": "eval_f1_entities"},
            "output": {"name": "m", "uri": (tmp_path / "registry").as_uri()},
            "export": ["safetensors"],
        },
        capsys,
    )
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    reached = [entry["eval_f1_entities"] for entry in log if "eval_f1_entities" in entry]
    assert float(published.metrics["eval_f1_entities"]) == pytest.approx(max(reached), abs=1e-6)


@pytest.mark.parametrize("task", list(Task))
def test_a_smaller_error_is_better_and_a_larger_score(task: Task) -> None:
    smaller = {"loss", "mse", "rmse", "mae", "hamming_loss", "ece"}
    for metric in evaluation_metrics(task_of(task)):
        parameters = Hyperparameters(metric_for_best_model=metric)
        assert greater_is_better(parameters, task_of(task)) is (metric.removeprefix("eval_") not in smaller), metric
        assert greater_is_better(Hyperparameters(metric_for_best_model=metric, greater_is_better=True), task_of(task))
