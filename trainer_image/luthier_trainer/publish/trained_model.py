"""From trained weights to a version: measured, judged by the gates, exported, and published.

The last part of *train*, after training and where an earlier version has the weights. Needs torch.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from luthier_api.artifact_files import INT8_ONNX_FILE
from luthier_api.documents import Published, Resolved, RunDocument
from luthier_api.training import ExportFormat
from luthier_artifacts import PublishedVersion, Registry
from luthier_trainer.checkpointing.checkpoints import Checkpoints
from luthier_trainer.engine.finetuner import FineTuner
from luthier_trainer.engine.memory import memory_errors
from luthier_trainer.export.exporter import export_model
from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.models.base_model import BaseModel
from luthier_trainer.publish.artifact import build_artifact, metadata_of
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.published import as_published
from luthier_trainer.runtime.distributed import World
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.stopwatch import Stopwatch
from luthier_trainer.runtime.workspace import Workspace
from luthier_trainer.spec.metric_gates import gates_missed_by, missed_gates
from luthier_trainer.tasks.interface import TaskModule
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
    progress, clock, resolved, workspace = work.progress, work.clock, work.resolved, work.workspace
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
    missed = missed_gates(spec.evaluation, metrics)

    # Export. The first process speaks for all from here on.
    if not world.is_first:
        return world.receive(Published)
    progress.enter("Exporting")
    with clock.part("export"):
        padding = tuner.forward.padding
        exports = export_model(
            trained.model, workspace.artifact, spec, task, prepared, answers, padding=padding, threads=work.threads
        )
        # What a server loads where there is one; its fp32 forms compute what was measured above.
        for export in exports:
            if export.format is ExportFormat.ONNX_INT8 and not missed:
                missed = gates_missed_by(INT8_ONNX_FILE, export.texts, spec.evaluation, export.metrics)
        findings = Findings(
            metrics=metrics,
            missed_gates=missed,
            evaluation=evaluation,
            test=test,
            history=trained.history,
            steps=trained.steps,
            best_step=trained.best_step,
            device=trained.device,
            precision=trained.precision,
            exports=exports,
            padding=padding,
            seconds=clock.seconds,
        )
        build_artifact(workspace, run, trained.model, work.base, prepared, findings)

    # Publish.
    progress.enter("Uploading")
    with clock.part("upload"):
        version = _publish(work.registry, workspace, run, resolved, prepared, findings)
    published = as_published(version, resolved.run_key)
    if trained.checkpoints:
        trained.checkpoints.delete_all()
    progress.enter("Done")
    log.info("seconds: %s", " ".join(f"{name}={seconds:.1f}" for name, seconds in clock.seconds.items()))
    return world.broadcast(published)


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
