"""Builds the folder that is published: a model in hub format, with its metrics, data report and lineage.

config.json, model.safetensors, tokenizer files    AutoModelForSequenceClassification.from_pretrained(folder)
model.onnx                                         written by `export` beforehand, where it was asked for
luthier.json, reference.json                       what the server needs, and compares what it is asked with
metrics.json, quality.json, run.json               the results, the data, the run document without storage access
README.md                                          the model card, by which a hub shows the folder
log.jsonl, console.log, report.html                for people
tensorboard/                                       event files, where they were asked for
"""

import json
import math
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from transformers import PreTrainedModel

from luthier_api.artifact_files import (
    CONSOLE_FILE,
    LOG_FILE,
    METRICS_FILE,
    REFERENCE_FILE,
    REPORT_FILE,
    RUN_FILE,
    SERVING_DOCUMENT_FILE,
)
from luthier_api.documents import Padding, Resolved, RunDocument, ServingDocument
from luthier_api.training import TrainingSpec
from luthier_artifacts import Lineage, Metadata
from luthier_trainer.formats.prepared import QUALITY_FILE, PreparedFolder
from luthier_trainer.models.base_model import BaseModel
from luthier_trainer.publish.card import write_card
from luthier_trainer.publish.event_files import FOLDER as EVENTS_FOLDER
from luthier_trainer.publish.event_files import write_event_files
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.metrics_file import metrics_json
from luthier_trainer.publish.report import write_report
from luthier_trainer.publish.tokenizer_files import write_tokenizer
from luthier_trainer.runtime.workspace import Workspace

_RECORDED_PACKAGES = (
    *("luthier-trainer", "torch", "transformers", "tokenizers", "accelerate"),
    *("numpy", "scikit-learn", "onnx", "onnxruntime", "pyarrow"),
)


def build_artifact(
    workspace: Workspace,
    run: RunDocument,
    model: PreTrainedModel,
    base: BaseModel,
    prepared: PreparedFolder,
    findings: Findings,
) -> None:
    """Fill workspace.artifact; model.onnx is there already if it was asked for."""
    folder = workspace.artifact
    model.save_pretrained(folder)
    write_tokenizer(folder, model, base, prepared, run.spec, findings.padding)
    serving = serving_document(run.spec, prepared, findings.padding)
    (folder / SERVING_DOCUMENT_FILE).write_text(serving.to_json(indent=2) + "\n")
    if findings.reference:
        (folder / REFERENCE_FILE).write_text(findings.reference.to_json(indent=2) + "\n")
    (folder / RUN_FILE).write_text(without_access(run).to_json(indent=2) + "\n")
    (folder / METRICS_FILE).write_text(metrics_json(findings))
    shutil.copyfile(workspace.prepared / QUALITY_FILE, folder / QUALITY_FILE)
    # Of every attempt: what was logged before a checkpoint came with it.
    (folder / LOG_FILE).write_text("".join(json.dumps(_finite(entry)) + "\n" for entry in findings.history))
    if workspace.console_log.exists():
        shutil.copyfile(workspace.console_log, folder / CONSOLE_FILE)
    write_report(folder / REPORT_FILE, run, prepared, findings, environment())
    write_card(folder, run, prepared, findings)
    if run.spec.tracking.tensorboard:
        write_event_files(folder / EVENTS_FOLDER, run.spec, findings.history, findings.metrics, findings.steps)


def serving_document(spec: TrainingSpec, prepared: PreparedFolder, padding: Padding) -> ServingDocument:
    """Return what the server must know."""
    preprocessing = spec.dataset.preprocessing
    return ServingDocument(
        task=spec.task,
        labels=prepared.data.labels,
        pairs=prepared.data.pairs,
        max_length=prepared.data.max_length,
        lowercase=preprocessing.lowercase,
        strip_whitespace=preprocessing.strip_whitespace,
        pad_token_id=prepared.data.pad_token_id,
        other_padding=None if padding == "right" else padding,
    )


def metadata_of(run: RunDocument, resolved: Resolved, prepared: PreparedFolder, findings: Findings) -> Metadata:
    """Return what the manifest says of the version."""
    return Metadata(
        task=run.spec.task,
        labels=prepared.data.labels,
        exports=sorted(outcome.format for outcome in findings.exports if outcome.shipped),
        metrics={name: value for name, value in findings.metrics.items() if math.isfinite(value)},
        promotable=not findings.missed_gates,
        gate_messages=findings.missed_gates,
        lineage=Lineage(
            base_model_uri=run.spec.model.uri,
            base_model_revision=resolved.model_revision,
            base_model_digest=resolved.model_digest,
            dataset_uri=run.spec.dataset.train.uri,
            dataset_digest=resolved.dataset_digest,
            dataset_quality=prepared.quality.to_wire(),
            run_document=without_access(run).to_wire(),
            image=run.image,
            code_version=_version_of("luthier-trainer"),
            environment=environment() | {"device": findings.device, "precision": findings.precision},
            seed=run.spec.hyperparameters.seed,
        ),
    )


def without_access(run: RunDocument) -> RunDocument:
    """Return the document without access to storage; it holds no secrets, but endpoints are not for publication."""
    # The address of a tracking server may hold a password.
    tracking = run.spec.tracking.model_copy(update={"mlflow": None})
    spec = run.spec.model_copy(update={"tracking": tracking})
    return RunDocument(spec=spec, image=run.image, origin=run.origin, resolved=run.resolved)


def environment() -> dict[str, str]:
    """Return the versions that decide what the same run would compute again."""
    return {"python": platform.python_version()} | {
        name: found for name in _RECORDED_PACKAGES if (found := _version_of(name)) is not None
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON has a form for."""
    return {name: value for name, value in values.items() if not isinstance(value, float) or math.isfinite(value)}


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
