"""*train*: fine-tunes the base model on the prepared data, measures it, exports it and publishes the version.

Where a version has the weights already, and only another export or gate is wanted, they are taken from there.

Reads top to bottom like the method section of a paper. The rooms hold the details: `data`, `models`,
`engine` (optimization and evaluation), `checkpointing`, `export` (ONNX) and `publish` (the folder that is published).
"""

import logging
import shutil
from dataclasses import replace

import torch
from transformers import PrinterCallback, set_seed

from luthier_api.artifact_files import ADAPTER_FOLDER
from luthier_api.cpus import available_cpus
from luthier_api.documents import Published, Resolved, RunDocument
from luthier_api.training import Precision
from luthier_trainer.checkpointing.best_weights import BestWeights
from luthier_trainer.checkpointing.checkpoints import Checkpoints
from luthier_trainer.checkpointing.fit import fit
from luthier_trainer.engine.device import detect_device
from luthier_trainer.engine.finetuner import fine_tuner
from luthier_trainer.engine.memory import memory_errors
from luthier_trainer.engine.trainer_arguments import trainer_arguments
from luthier_trainer.engine.watcher import Watcher
from luthier_trainer.export.trial import try_export
from luthier_trainer.formats.prepared import read_prepared
from luthier_trainer.models.adapters import adapter_document, finish
from luthier_trainer.models.base_model import BaseModel, check_base_model
from luthier_trainer.models.fetch import fetch_model
from luthier_trainer.models.load import load_model
from luthier_trainer.models.methods import adapt, count_parameters, quantization
from luthier_trainer.publish.kept_weights import fetch_weights
from luthier_trainer.publish.published import as_published
from luthier_trainer.publish.tokenizer_files import write_tokenizer
from luthier_trainer.publish.trained_model import Trained, Work, named, publish_trained
from luthier_trainer.runtime.distributed import World
from luthier_trainer.runtime.errors import InputChanged, InvalidSpec
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.stopping import Stop
from luthier_trainer.runtime.stopwatch import Stopwatch
from luthier_trainer.runtime.storage import open_output
from luthier_trainer.runtime.turns import Turn, turn_to_train
from luthier_trainer.runtime.workspace import Workspace
from luthier_trainer.spec.hyperparameters import best_metric, greater_is_better
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
    resolved, world = _resolved(run), world or World()
    registry = open_output(run, progress.record_waiting)
    # Heartbeats and checkpoints do not wait for new keys: the next one comes soon, and says why this one failed.
    with turn_to_train(run, open_output(run), resolved, progress, takes_part=world.is_first) as turn:
        if found := world.broadcast(turn.wait() if world.is_first else None):
            return as_published(found, resolved.run_key)
        clock, tracker = Stopwatch(), tracker or MlflowTracker()

        # Data and base model: exactly those that prepare resolved.
        progress.enter("Downloading")
        with clock.part("download"), world.leader_first():
            base = _fetch_base_model(run, resolved, workspace)
            registry.get_prepared(resolved.data_key, workspace.prepared, workspace.cache)
            prepared = read_prepared(workspace.prepared)
        threads = max(1, available_cpus() // world.local_size)
        torch.set_num_threads(threads)
        work = Work(run, resolved, registry, workspace, progress, world, clock, base, prepared, threads)
        if resolved.weights_version:
            return publish_trained(work, _with_kept_weights(work), lambda metrics, step: None)
        published = publish_trained(work, _fit(work, turn, stop or Stop(), tracker, bar), tracker.measured)
        if world.is_first:
            tracker.published(published)
        return published


def _fit(work: Work, turn: Turn, stop: Stop, tracker: MlflowTracker, bar: bool) -> Trained:
    """Train the base model on the data, from the newest checkpoint of the run if there is one."""
    run, resolved, workspace, progress, world = work.run, work.resolved, work.workspace, work.progress, work.world
    spec, task, base, prepared, clock = run.spec, work.task, work.base, work.prepared, work.clock
    labels = prepared.data.labels
    checkpoints = Checkpoints(
        open_output(run), resolved.run_key, spec.checkpoint, workspace.checkpoints, workspace.resumed, progress
    )

    # Device and precision.
    device = detect_device()
    precision = choose_precision(spec.precision, device)
    arguments = trainer_arguments(
        spec, task, examples=len(prepared.train), precision=precision, device=device, folder=workspace.training
    )
    log.info("training on %s in %s with %d CPU threads", device.name, precision, work.threads)

    # Model: the pretrained encoder with the task's head; the method chooses the weights that are trained.
    set_seed(spec.hyperparameters.seed)
    with clock.part("load"):
        held = quantization(spec.method, device, precision)
        loaded = load_model(base, spec.model.uri, task, labels, quantization=held)
        if world.is_first:
            try_export(loaded, spec, task, prepared, threads=work.threads)
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
    with clock.part("baseline"), memory_errors(spec.hyperparameters):
        baseline = task.baseline(prepared.train, prepared.held_out, labels)
        untrained = tuner.predictions(prepared.held_out)
    metrics = named("baseline_majority_", baseline)
    metrics |= named("untrained_", {"loss": untrained.loss, **task.measure(untrained, labels)})

    # Fit: from the newest checkpoint of this run, if there is one, to the best weights by the chosen metric.
    best = BestWeights(
        best_metric(spec.hyperparameters, task),
        greater_is_better=greater_is_better(spec.hyperparameters, task),
        stopping=spec.hyperparameters.early_stopping,
        folder=workspace.training / "best",
        world=world,
    )
    with clock.part("fit"), memory_errors(spec.hyperparameters):
        fitted = fit(tuner, best, checkpoints, stop, turn, world, progress)
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
    state = tuner.state
    return Trained(
        *(tuner, plain, metrics, state.log_history, state.global_step, best.record.step, device.name, precision),
        checkpoints=checkpoints,
    )


def _with_kept_weights(work: Work) -> Trained:
    """Load the weights that an earlier version has, which are those that this run would train.

    On a CPU too if they were trained in a precision that only a GPU has: they are measured and exported in fp32.
    """
    workspace, resolved, task, prepared = work.workspace, work.resolved, work.task, work.prepared
    with work.clock.part("load"), work.world.leader_first():
        kept = fetch_weights(work.registry, resolved, workspace.kept, workspace.cache)
    log.info("using the weights of version %s; nothing is trained", resolved.weights_version)
    uri = work.registry.version_uri(resolved.weights_version or "")
    model = load_model(replace(work.base, folder=kept.folder), uri, task, prepared.data.labels)
    if work.world.is_first and (kept.folder / ADAPTER_FOLDER).is_dir():
        shutil.copytree(kept.folder / ADAPTER_FOLDER, workspace.artifact / ADAPTER_FOLDER, dirs_exist_ok=True)
    # What only matters to training may need a GPU.
    spec = work.run.spec.model_copy(update={"training_arguments": {}})
    arguments = trainer_arguments(
        spec,
        task,
        examples=len(prepared.train),
        precision=Precision.FP32,
        device=detect_device(),
        folder=workspace.training,
    )
    tuner = fine_tuner(model, arguments, task, spec.hyperparameters, prepared, callbacks=[])
    work.clock.seconds.update({name: seconds for name, seconds in kept.seconds.items() if name in ("baseline", "fit")})
    return Trained(tuner, model, kept.metrics, kept.history, kept.steps, kept.best_step, kept.device, kept.precision)


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
