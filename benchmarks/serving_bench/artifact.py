"""The artifact that every side serves, made by Luthier's own trainer, and the real texts that are sent.

The model is the 6-layer BERT of the demo, trained for one epoch on its review sentences and exported to int8. A second
run finds the version and trains nothing.

    mixed   the reviews held out, as they are
    short   those of at most 16 tokens
    long    the same joined to 50 to 120 tokens
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving_bench.peers.model import Model
from luthier_dev import samples, steps
from luthier_dev.paths import layout

MAX_LENGTH = 128
SHORT_TOKENS = 16
LONG_TOKENS = (50, 120)
TEXTS_OF_A_KIND = 100
# Some sides compute in fp32, others in int8: a text is sent only if both are sure of one label.
LEAST_CONFIDENCE = 0.65


@dataclass(frozen=True)
class Artifact:
    """A version in a registry that is a folder."""

    name: str
    version: str
    uri: str
    digest: str

    @property
    def folder(self) -> Path:
        return Path(self.uri.removeprefix("file://"))

    def model(self) -> Model:
        return Model(self.folder, self.version)

    def model_fp32(self) -> Model:
        return Model(self.folder, self.version, "model.onnx")


def make_artifact() -> Artifact:
    """Train, or find what was trained."""
    folder = layout().make(layout().home / "serving-bench")
    reviews = samples.reviews_csv()
    spec = {
        "model": {"uri": samples.base_model().as_uri()},
        "dataset": {
            "train": {"uri": reviews.train.as_uri()},
            "eval": {"uri": reviews.eval.as_uri()},
            "preprocessing": {"maxLength": MAX_LENGTH},
        },
        "hyperparameters": {"epochs": 1, "batchSize": 32, "learningRate": "2e-4"},
        "export": ["safetensors", "onnx", "onnx-int8"],
        "output": {"name": "reviews", "uri": (folder / "registry").as_uri()},
    }
    with steps.step("Train the model, unless it is there", usually_s=60), tempfile.TemporaryDirectory() as workspace:
        document = Path(workspace) / "run.json"
        document.write_text(json.dumps({"spec": spec}))
        command = [sys.executable, "-m", "luthier_trainer", "run", str(document)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=workspace)
    if done.returncode:
        raise SystemExit(f"The training ended with {done.returncode}: {done.stderr[-2000:]}")
    published = json.loads(done.stdout)["published"]
    artifact = Artifact("reviews", published["version"], published["uri"], published["digest"])
    if not (artifact.folder / "model.int8.onnx").exists():
        raise SystemExit(f"{artifact.folder} has no model.int8.onnx: the trainer judged it too inaccurate to ship.")
    return artifact


def make_texts(model: Model, fp32: Model) -> dict[str, list[str]]:
    """Return texts by kind, always the same ones, each with a label that both models are sure of."""
    with samples.reviews_csv().eval.open(newline="", encoding="utf-8") as file:
        reviews = [row["text"] for row in csv.DictReader(file)]
    random.Random(0).shuffle(reviews)
    kinds = {
        "mixed": reviews,
        "short": [text for text in reviews if _tokens(model, text) <= SHORT_TOKENS],
        "long": _joined(model, reviews),
    }
    sure = {kind: [text for text in texts if _agree(text, model, fp32)] for kind, texts in kinds.items()}
    return {kind: texts[:TEXTS_OF_A_KIND] for kind, texts in sure.items()}


def _agree(text: str, *models: Model) -> bool:
    found = [model.predict(text) for model in models]
    return len({each["prediction"] for each in found}) == 1 and all(
        each["confidence"] >= LEAST_CONFIDENCE for each in found
    )


def describe(model: Model, texts: dict[str, list[str]]) -> dict[str, Any]:
    """Return how many texts of each kind there are and how long they are."""
    return {
        kind: {
            "texts": len(each),
            "mean_tokens": round(statistics.mean(_tokens(model, text) for text in each), 1),
            "most_tokens": max(_tokens(model, text) for text in each),
        }
        for kind, each in texts.items()
    }


def _joined(model: Model, reviews: list[str]) -> list[str]:
    lengths = random.Random(1)
    made, text, wanted = [], "", lengths.randint(*LONG_TOKENS)
    for each in reviews * 4:
        text = f"{text} {each}".strip()
        if _tokens(model, text) >= wanted:
            made.append(text)
            text, wanted = "", lengths.randint(*LONG_TOKENS)
    return made


def _tokens(model: Model, text: str) -> int:
    return len(model.tokenizer.encode(text).ids)
