"""From trained weights to a version: measured, judged by the gates, exported, and published.

The last part of *train*, after training and where an earlier version has the weights. Needs torch.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from luthier_api.artifact_files import INT8_ONNX_FILE
from luthier_api.documents import Published, Resolved, RunDocument
from luthier_api.keys import run_key
from luthier_api.training import ExportFormat
from luthier_artifacts import PublishedVersion, Registry, StorageError
from luthier_trainer.checkpointing.checkpoints import Checkpoints
from luthier_trainer.engine.finetuner import FineTuner
from luthier_trainer.engine.memory import memory_errors
from luthier_trainer.export.exporter import export_model
from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.models.base_model import BaseModel
from luthier_trainer.publish.artifact import build_artifact, metadata_of
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.published import as_published
from luthier_trainer.publish.reference import reference_of
from luthier_trainer.runtime.distributed import World
from luthier_trainer.runtime.errors import ExportFailed
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.stopwatch import Stopwatch
from luthier_trainer.runtime.workspace import Workspace
from luthier_trainer.spec.metric_gates import gates_missed_by, missed_gates
from luthier_trainer.tasks.evaluation import Evaluation
from luthier_trainer.tasks.interface import Predictions, TaskModule
from luthier_trainer.tasks.registry import task_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What every part of the run needs."""

    run: RunDocument
    resolved: Resolved
    registry: Registry
    workspace: Workspace
    progress: Progress
    world: World
    clock: Stopwatch
    base: BaseModel
    prepared: PreparedFolder
    threads: int

    @property
    def task(self) -> TaskModule:
        """What the model learns."""
        return task_of(self.run.spec.task)


@dataclass(frozen=True)
class Trained:
    """A plain model with the weights of the run, and what its training found out; see `Findings`."""

    tuner: FineTuner
    model: PreTrainedModel
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    steps: int
    best_step: int | None
    device: str
    precision: str
    checkpoints: Checkpoints | None = None


def publish_trained(work: Work, trained: Trained, measured: Callable[[dict[str, float], int], None]) -> Published:
    """Measure the model, export it and publish the version.

    Args:
        work: the run.
        trained: the model, in each process of a training.
        measured: is told the metrics, and after how many steps.
    """
    run, prepared, task, world, tuner = work.run, work.prepared, work.task, work.world, trained.tuner
    progress, clock, resolved = work.progress, work.clock, work.resolved
    spec, labels, metrics = run.spec, prepared.data.labels, dict(trained.metrics)

    # Measure: the evaluation split, which selected the best weights, then the test split, which selected nothing.
    progress.enter("Evaluating")
    with clock.part("evaluate"), memory_errors(spec.hyperparameters):
        answers = tuner.predictions(prepared.held_out)
        evaluation, test = task.evaluate(answers, prepared.held_out, labels, seed=spec.hyperparameters.seed), None
        metrics |= named("eval_", {"loss": answers.loss, **evaluation.metrics})
        if prepared.test:
            tested = tuner.predictions(prepared.test)
            test = task.evaluate(tested, prepared.test, labels, seed=spec.hyperparameters.seed)
            metrics |= named("test_", {"loss": tested.loss, **test.metrics})
    progress.record_metrics(metrics)
    measured(metrics, trained.steps)

    # Export and publish. The first process speaks for all from here on.
    if not world.is_first:
        return world.receive(Published)
    found = _Measured(answers, metrics, evaluation, test)
    try:
        version = _export_and_publish(work, trained, found)
    except ExportFailed as error:
        raise ExportFailed(f"{error} {_keep_weights(work, trained, found)}".strip()) from error
    published = as_published(version, resolved.run_key)
    if trained.checkpoints:
        trained.checkpoints.delete_all()
    progress.enter("Done")
    log.info("seconds: %s", " ".join(f"{name}={seconds:.1f}" for name, seconds in clock.seconds.items()))
    return world.broadcast(published)


@dataclass(frozen=True)
class _Measured:
    """What the model says of the evaluation split, and how good that is."""

    answers: Predictions
    metrics: dict[str, float]
    evaluation: Evaluation
    test: Evaluation | None


def _export_and_publish(work: Work, trained: Trained, measured: _Measured) -> PublishedVersion:
    run, prepared, workspace, clock = work.run, work.prepared, work.workspace, work.clock
    spec, padding = run.spec, trained.tuner.forward.padding
    work.progress.enter("Exporting")
    with clock.part("export"):
        exports = export_model(
            *(trained.model, workspace.artifact, spec, work.task, prepared, measured.answers),
            padding=padding,
            threads=work.threads,
        )
        missed = missed_gates(spec.evaluation, measured.metrics)
        # What a server loads where there is one; its fp32 forms compute what was measured.
        for export in exports:
            if export.format is ExportFormat.ONNX_INT8 and not missed:
                missed = gates_missed_by(INT8_ONNX_FILE, export.texts, spec.evaluation, export.metrics)
        findings = Findings(
            metrics=measured.metrics,
            missed_gates=missed,
            evaluation=measured.evaluation,
            test=measured.test,
            history=trained.history,
            steps=trained.steps,
            best_step=trained.best_step,
            device=trained.device,
            precision=trained.precision,
            exports=exports,
            padding=padding,
            seconds=clock.seconds,
            reference=reference_of(
                *(work.task, measured.answers, prepared.held_out, prepared.data.labels, work.base.tokenizer())
            ),
        )
        build_artifact(workspace, run, trained.model, work.base, prepared, findings)
    work.progress.enter("Uploading")
    with clock.part("upload"):
        return _publish(work.registry, workspace, run, work.resolved, prepared, findings)


def _keep_weights(work: Work, trained: Trained, measured: _Measured) -> str:
    """Publish the weights alone, as the same spec with `export: [safetensors]` would; return a sentence about that.

    An export that fails is then no reason to train again.
    """
    spec = work.run.spec.model_copy(update={"export": [ExportFormat.SAFETENSORS]})
    inputs = work.resolved
    key = run_key(spec, model_digest=inputs.model_digest, data_key=inputs.data_key, image=inputs.image)
    resolved = inputs.model_copy(update={"run_key": key})
    alone = replace(work, run=work.run.model_copy(update={"spec": spec, "resolved": resolved}), resolved=resolved)
    for path in work.workspace.artifact.glob("*.onnx*"):
        path.unlink()
    try:
        version = _export_and_publish(alone, trained, measured)
    except StorageError as error:
        log.warning("the trained weights could not be published: %s", error)
        return ""
    if trained.checkpoints:
        trained.checkpoints.delete_all()
    return (
        f"The trained weights are version {version.version}, which answers the same spec with export: [safetensors]; "
        "they are not trained again."
    )


def _publish(
    registry: Registry,
    workspace: Workspace,
    run: RunDocument,
    resolved: Resolved,
    prepared: PreparedFolder,
    findings: Findings,
) -> PublishedVersion:
    version = registry.publish(workspace.artifact, resolved.run_key, metadata_of(run, resolved, prepared, findings))
    if version.reused:
        log.info("another process published version %s of the same run first", version.version)
    else:
        log.info("published version %s at %s", version.version, version.uri)
    if resolved.weights_key:
        registry.record_weights(resolved.weights_key, version.version)
    return version


def named(prefix: str, measured: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics by the names that status, gates and metrics.json have for them."""
    return {f"{prefix}{name}": float(value) for name, value in measured.items()}
