"""Weights that an earlier version has: another export or gate is made of them, without training and without a GPU.

The registry only hints at the version; what counts is that its manifest names the same weights key. What its training
found out lies in the artifact, and goes on into the new version. Needs no torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from luthier_api.artifact_files import LOG_FILE, METRICS_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from luthier_api.documents import Resolved
from luthier_artifacts import Manifest, ObjectNotFound, Registry
from luthier_trainer.runtime.errors import InputChanged, WeightsGone

# Measured anew: of the model that is exported, by the code that is here.
_MEASURED_ANEW = ("eval_", "test_")


@dataclass(frozen=True)
class KeptWeights:
    """A version's files, and what its training found out.

    Attributes:
        folder: its files.
        metrics: of the training and of the baselines.
        history: what the Trainer logged.
        steps: optimizer steps done.
        best_step: the step whose weights were kept.
        device: what it trained on.
        precision: fp32, fp16 or bf16.
        seconds: time by part of the run.
    """

    folder: Path
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    steps: int
    best_step: int | None
    device: str
    precision: str
    seconds: dict[str, float]


def find_weights(registry: Registry, resolved: Resolved) -> str | None:
    """Return a version that has the weights of a run, or None."""
    manifest = registry.find_weights(resolved.weights_key) if resolved.weights_key else None
    return manifest.version if manifest and _has_weights(manifest, resolved) else None


def fetch_weights(registry: Registry, resolved: Resolved, folder: Path, cache: Path) -> KeptWeights:
    """Download the version that *prepare* found, verified.

    Raises:
        WeightsGone: if it does not exist any more.
        InputChanged: if it is another one.
    """
    assert resolved.weights_version
    try:
        manifest = registry.download(resolved.weights_version, folder, cache)
    except ObjectNotFound as error:
        raise WeightsGone(
            f"The version {resolved.weights_version}, whose weights were to be used, is gone: run prepare again."
        ) from error
    if not _has_weights(manifest, resolved):
        raise InputChanged(f"The version {resolved.weights_version} has not the weights of this run; start it again.")
    found = json.loads((folder / METRICS_FILE).read_bytes())
    numbers = {name: float("nan") if value is None else value for name, value in found["metrics"].items()}
    environment = manifest.lineage.environment
    return KeptWeights(
        folder=folder,
        metrics={name: value for name, value in numbers.items() if not name.startswith(_MEASURED_ANEW)},
        history=[json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()],
        steps=found["steps"],
        best_step=found["bestStep"],
        device=environment.get("device", ""),
        precision=environment.get("precision", ""),
        seconds=found["seconds"],
    )


def _has_weights(manifest: Manifest, resolved: Resolved) -> bool:
    """Whether a version is of this weights key and whole; a manifest may say anything."""
    try:
        of = Resolved.model_validate(manifest.lineage.run_document.get("resolved"))
    except ValidationError:
        return False
    files = {entry.path for entry in manifest.files}
    whole = {METRICS_FILE, LOG_FILE} <= files and bool(files & {WEIGHTS_FILE, WEIGHTS_INDEX_FILE})
    return of.weights_key == resolved.weights_key and whole
