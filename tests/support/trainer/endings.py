"""What a run ended with: its weights, its evaluations and its losses, to be compared with those of another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from luthier_artifacts import StorageConfig, open_registry
from support.trainer.attempts import Trainer


@dataclass
class Ending:
    """What a run ended with."""

    weights: dict[str, torch.Tensor]
    metrics: dict[str, float]
    best_step: int
    steps: int
    evaluations: list[dict[str, float]]
    losses: dict[int, float]

    def equals(self, other: Ending) -> bool:
        """Weights to the bit, and every evaluation on the way there."""
        same = [torch.equal(weight, other.weights[name]) for name, weight in self.weights.items()]
        rest = [
            (each.best_step, each.steps, each.evaluations, each.losses, each.metrics["eval_loss"])
            for each in (self, other)
        ]
        return len(same) == len(other.weights) and all(same) and rest[0] == rest[1]


def ending(bench: Any, output: str, folder: Path) -> Ending:
    registry = open_registry(f"{bench.uri}/{output}", "sentiment", StorageConfig.from_access(bench.access))
    (version,) = registry.list_versions()
    registry.download(version, folder)
    found = json.loads((folder / "metrics.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return Ending(
        weights=load_file(folder / "model.safetensors"),
        metrics=found["metrics"],
        best_step=found["bestStep"],
        steps=found["steps"],
        evaluations=[{"step": each["step"], "loss": each["eval_loss"]} for each in log if "eval_loss" in each],
        losses={each["step"]: each["loss"] for each in log if "loss" in each},
    )


def elsewhere(bench: Any, document: dict[str, Any], output: str) -> dict[str, Any]:
    """The same run with another output, so that it is trained there too."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    copy["spec"]["output"]["uri"] = f"{bench.uri}/{output}"
    prepared: dict[str, Any] = bench.prepared(copy)
    return prepared


def undisturbed(bench: Any, trainer: Trainer, document: dict[str, Any]) -> Ending:
    """Train the same run in another place, without disturbance."""
    copy = elsewhere(bench, document, "undisturbed")
    assert copy["resolved"]["runKey"] == document["resolved"]["runKey"]
    trainer.finish(copy)
    return ending(bench, "undisturbed", bench.folder / "undisturbed")
