"""*train*: fine-tunes the base model on the prepared data, measures it, exports it and publishes the version.

Reads top to bottom like the method section of a paper. The rooms hold the details: `data`, `models`,
`engine` (optimization and evaluation), `checkpointing`, `export` (ONNX) and `publish` (the folder that is published).
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from transformers import PrinterCallback, set_seed

from luthier_api.artifact_files import ADAPTER_FOLDER, INT8_ONNX_FILE
from luthier_api.cpus import available_cpus
from luthier_api.documents import Published, Resolved, RunDocument
from luthier_api.training import ExportFormat, Hyperparameters
from luthier_artifacts import PublishedVersion, Registry
from luthier_trainer.checkpointing.best_weights import BestWeights
from luthier_trainer.checkpointing.checkpoints import Checkpoints
from luthier_trainer.checkpointing.fit import fit
from luthier_trainer.engine.device import detect_device
from luthier_trainer.engine.finetuner import fine_tuner
from luthier_trainer.engine.trainer_arguments import trainer_arguments
from luthier_trainer.engine.watcher import Watcher
from luthier_trainer.export.exporter import export_model
from luthier_trainer.export.trial import try_export
from luthier_trainer.formats.prepared import PreparedFolder, read_prepared
from luthier_trainer.models.adapters import adapter_document, finish
from luthier_trainer.models.base_model import BaseModel, check_base_model
from luthier_trainer.models.fetch import fetch_model
from luthier_trainer.models.load import load_model
from luthier_trainer.models.methods import adapt, count_parameters, quantization
from luthier_trainer.publish.artifact import build_artifact, metadata_of
from luthier_trainer.publish.findings import Findings
from luthier_trainer.publish.published import as_published
from luthier_trainer.publish.tokenizer_files import write_tokenizer
from luthier_trainer.runtime.distributed import World
from luthier_trainer.runtime.errors import GpuOutOfMemory, InputChanged, InvalidSpec, OutOfMemory
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.stopping import Stop
from luthier_trainer.runtime.storage import open_output
from luthier_trainer.runtime.workspace import Workspace
from luthier_trainer.spec.hyperparameters import best_metric, greater_is_better
from luthier_trainer.spec.metric_gates import gates_missed_by, missed_gates
from luthier_trainer.spec.precision import choose_precision
from luthier_trainer.tasks.registry import task_of
from luthier_trainer.tracking.mlflow_tracker import MlflowTracker

log = logging.getLogger(__name__)


def train(
    run: RunDocument,
    workspace: Workspace,
    progress: Progress,
    *,
    bar: bool = False,
    stop: Stop | None = None,
    world: World | None = None,
    tracker: MlflowTracker | None = None,
) -> Published:
    """Produce the version that the run document describes, or find the one that exists.

    Args:
        run: with `resolved`, which *prepare* filled in.
        workspace: local folders.
        progress: shown to the operator and the terminal.
        bar: draw a progress bar on standard error.
        stop: requests to stop this process.
        world: the processes that train together; each calls this, and the first one alone writes.
        tracker: reports to a tracking server.

    Raises:
        TrainerError, StorageError: with one sentence of what is wrong and what to do.
    """
    spec, resolved = run.spec, _resolved(run)
    stop, world, tracker = stop or Stop(), world or World(), tracker or MlflowTracker()
    registry = open_output(run, progress.record_waiting)
    checkpoints = Checkpoints(
        open_output(run), resolved.run_key, spec.checkpoint, workspace.checkpoints, workspace.resumed, progress
    )
    if found := world.broadcast(registry.find_run(resolved.run_key) if world.is_first else None):
        return as_published(found, resolved.run_key)
    clock = _Clock()

    # Data and base model: exactly those that prepare resolved.
    progress.enter("Downloading")
    with clock.part("download"), world.leader_first():
        base = _fetch_base_model(run, resolved, workspace)
        registry.get_prepared(resolved.data_key, workspace.prepared, workspace.cache)
        prepared = read_prepared(workspace.prepared)
        labels = prepared.data.labels

    # Device and precision.
    task = task_of(spec.task)
    threads = max(1, available_cpus() // world.local_size)
    torch.set_num_threads(threads)
    device = detect_device()
    precision = choose_precision(spec.precision, device)
    arguments = trainer_arguments(
        spec, task, examples=len(prepared.train), precision=precision, device=device, folder=workspace.training
    )
    log.info("training on %s in %s with %d CPU threads", device.name, precision, threads)

    # Model: the pretrained encoder with the task's head; the method chooses the weights that are trained.
    set_seed(spec.hyperparameters.seed)
    with clock.part("load"):
        held = quantization(spec.method, device, precision)
        loaded = load_model(base, spec.model.uri, task, labels, quantization=held)
        if world.is_first:
            try_export(loaded, spec, task, prepared, threads=threads)
        model = adapt(loaded, spec.method)
    log.info("method %s trains %d of %d weights", spec.method.type, *count_parameters(model))

    # Optimization: AdamW on texts without padding.
    watcher = Watcher(progress, bar=bar)
    tuner = fine_tuner(model, arguments, task, spec.hyperparameters, prepared, callbacks=[watcher, tracker])
    tuner.remove_callback(PrinterCallback)
    if world.is_first:
        write_tokenizer(workspace.artifact, loaded, base, prepared, spec, tuner.forward.padding)

    # Baselines: the most frequent answer, and this very model before training.
    progress.enter("Evaluating")
    with clock.part("baseline"), _memory_errors(spec.hyperparameters):
        baseline = task.baseline(prepared.train, prepared.held_out, labels)
        untrained = tuner.predictions(prepared.held_out)
    metrics = _named("baseline_majority_", baseline)
    metrics |= _named("untrained_", {"loss": untrained.loss, **task.measure(untrained, labels)})

    # Fit: from the newest checkpoint of this run, if there is one, to the best weights by the chosen metric.
    best = BestWeights(
        best_metric(spec.hyperparameters, task),
        greater_is_better=greater_is_better(spec.hyperparameters, task),
        stopping=spec.hyperparameters.early_stopping,
        folder=workspace.training / "best",
        world=world,
    )
    with clock.part("fit"), _memory_errors(spec.hyperparameters):
        fitted = fit(tuner, best, checkpoints, stop, world, progress)
    metrics |= {
        "train_loss": fitted.training_loss,
        "train_seconds": clock.seconds["fit"],
        "train_examples_per_second": fitted.metrics["train_samples_per_second"],
    }

    # Merge adapters into a plain model, which is then measured, exported and published.
    with clock.part("merge"):
        about = adapter_document(run, resolved, labels)
        adapter = workspace.artifact / ADAPTER_FOLDER if world.is_first else None
        plain = finish(model, lambda: load_model(base, spec.model.uri, task, labels), about, adapter)
        tuner.use(plain)

    # Measure: the evaluation split, which selected the best weights, then the test split, which selected nothing.
    progress.enter("Evaluating")
    with clock.part("evaluate"), _memory_errors(spec.hyperparameters):
        trained = tuner.predictions(prepared.held_out)
        evaluation, test = task.evaluate(trained, prepared.held_out, labels, seed=spec.hyperparameters.seed), None
        metrics |= _named("eval_", {"loss": trained.loss, **evaluation.metrics})
        if prepared.test:
            tested = tuner.predictions(prepared.test)
            test = task.evaluate(tested, prepared.test, labels, seed=spec.hyperparameters.seed)
            metrics |= _named("test_", {"loss": tested.loss, **test.metrics})
    progress.record_metrics(metrics)
    tracker.measured(metrics, tuner.state.global_step)
    missed = missed_gates(spec.evaluation, metrics)

    # Export. The first process speaks for all from here on.
    if not world.is_first:
        return world.receive(Published)
    progress.enter("Exporting")
    with clock.part("export"):
        padding = tuner.forward.padding
        exports = export_model(
            plain, workspace.artifact, spec, task, prepared, trained, padding=padding, threads=threads
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
            history=tuner.state.log_history,
            steps=tuner.state.global_step,
            best_step=best.record.step,
            device=device.name,
            precision=precision,
            exports=exports,
            padding=padding,
            seconds=clock.seconds,
        )
        build_artifact(workspace, run, plain, base, prepared, findings)

    # Publish.
    progress.enter("Uploading")
    with clock.part("upload"):
        version = _publish(registry, workspace, run, resolved, prepared, findings)
    published = as_published(version, resolved.run_key)
    tracker.published(published)
    checkpoints.delete_all()
    progress.enter("Done")
    log.info("seconds: %s", " ".join(f"{name}={seconds:.1f}" for name, seconds in clock.seconds.items()))
    return world.broadcast(published)


def _resolved(run: RunDocument) -> Resolved:
    if run.resolved is None:
        raise InvalidSpec("The run document has no `resolved`: run `prepare` first, or `run`, which does both.")
    return run.resolved


def _fetch_base_model(run: RunDocument, resolved: Resolved, workspace: Workspace) -> BaseModel:
    fetched = fetch_model(run, workspace.model, workspace.cache)
    if fetched.digest != resolved.model_digest:
        raise InputChanged(
            f"The base model {run.spec.model.uri} has changed since the run was prepared; start the run again."
        )
    return check_base_model(
        fetched.folder,
        run.spec.model.uri,
        auto_class=task_of(run.spec.task).auto_class,
        max_length=run.spec.dataset.preprocessing.max_length,
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
    return version


def _named(prefix: str, measured: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics by the names that status, gates and metrics.json have for them."""
    return {f"{prefix}{name}": float(value) for name, value in measured.items()}


@contextmanager
def _memory_errors(parameters: Hyperparameters) -> Iterator[None]:
    """Turn out-of-memory errors into failures that say what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GpuOutOfMemory(
            f"The GPU ran out of memory with batchSize {parameters.batch_size} (evalBatchSize "
            f"{parameters.eval_batch_size}). Lower it and raise gradientAccumulationSteps, or lower maxLength."
        ) from error
    except RuntimeError as error:
        # torch has no class of its own for the host's memory.
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise OutOfMemory(
            f"The host ran out of memory with batchSize {parameters.batch_size}. Raise resources.limits.memory, or "
            "lower batchSize or maxLength."
        ) from error


class _Clock:
    """Seconds that each part of the run took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 2)
