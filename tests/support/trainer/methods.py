"""Runs of each method with local folders, on data so plain that the smallest of models learn it in seconds."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from luthier_api.documents import Result
from luthier_trainer.cli import main

ARCHITECTURES = ("bert", "roberta", "distilbert")
LABELS = 2
FAST = {"epochs": 12, "batchSize": 8, "learningRate": "1e-2", "metricForBestModel": "eval_loss"}
THINGS = [
    f"{first} {second}" for first in ("old", "new", "first", "last") for second in ("film", "phone", "story", "cast")
]
Models = Callable[[str], Path]


def with_larger_weights(models: Models, folder: Path) -> Models:
    """The models with larger weights: what they make of a text depends on its words, so that heads can learn."""

    def get(architecture: str) -> Path:
        larger = folder / f"base-{architecture}"
        if not larger.exists():
            shutil.copytree(models(architecture), larger)
            weights = load_file(larger / "model.safetensors")
            changed = {name: weight * 12 if weight.dim() == 2 else weight for name, weight in weights.items()}
            save_file(changed, larger / "model.safetensors", metadata={"format": "pt"})
        return larger

    return get


def classifier(folder: Path, auto_class: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = auto_class.from_pretrained(folder, num_labels=LABELS)
    return model


def with_adapter(base: Path, artifact: Path) -> PeftModel:
    """As docs/methods.md says it."""
    with warnings.catch_warnings():
        # peft asks transformers for an attribute by its former name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(classifier(base), str(artifact / "adapter"))


def logits(model: Any, *, texts: int = 4) -> torch.Tensor:
    """Of random texts, the same each time."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 300, (texts, 12), generator=generator)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found


class MethodBench:
    """Runs documents with local folders."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capture, self.runs = folder, capture, 0
        # One word decides, so that the smallest of models learn it in seconds.
        rows = [(f"the {thing} is {word} {word}", word) for thing in THINGS for word in ("good", "bad")]
        with (folder / "train.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])

    def run(self, model: Path, method: dict[str, Any], **hyperparameters: Any) -> tuple[int, Result, str]:
        self.runs += 1
        document = self.folder / f"run-{self.runs}.json"
        spec = {
            "model": {"uri": model.as_uri()},
            "dataset": {
                "train": {"uri": (self.folder / "train.csv").as_uri()},
                "split": {"fraction": "0.2"},
                "preprocessing": {"maxLength": 24},
            },
            "export": ["safetensors"],
            "method": method,
            "hyperparameters": FAST | hyperparameters,
            "output": {"name": "m", "uri": (self.folder / f"registry-{self.runs}").as_uri()},
        }
        document.write_text(json.dumps({"spec": spec}))
        self.capture.readouterr()
        code = main(["run", str(document)])
        captured = self.capture.readouterr()
        return code, Result.from_json(captured.out), captured.err

    def artifact(self, model: Path, method: dict[str, Any], **hyperparameters: Any) -> tuple[Path, dict[str, float]]:
        code, result, log = self.run(model, method, **hyperparameters)
        assert code == 0 and result.published, log
        folder = Path(result.published.uri.removeprefix("file://"))
        return folder, json.loads((folder / "metrics.json").read_text())["metrics"]
