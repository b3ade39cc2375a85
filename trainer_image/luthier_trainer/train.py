"""*train*: fine-tunes the base model on the prepared data, measures it, exports it and publishes the version.

Reads top to bottom like the method section of a paper. What each part is made of lies elsewhere: `hyperparameters`
(every number of the optimization), `evaluation` (metrics), `export` (ONNX), `artifact` (the folder that is published).
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    set_seed,
)

from luthier_api.documents import Published, Resolved, RunDocument
from luthier_api.training import ExportFormat, Hyperparameters
from luthier_artifacts import PublishedVersion, Registry
from luthier_trainer import metric_names
from luthier_trainer.artifact import Findings, build_artifact, metadata_of
from luthier_trainer.base_model import BaseModel, check_base_model
from luthier_trainer.callbacks import ADVICE, Watcher
from luthier_trainer.errors import GpuOutOfMemory, InputChanged, InvalidModel, InvalidSpec, LossNotFinite, OutOfMemory
from luthier_trainer.evaluation import classification_metrics, confusion, majority_accuracy, per_label_report
from luthier_trainer.export import export_onnx
from luthier_trainer.gates import missed_gates
from luthier_trainer.hyperparameters import training_arguments
from luthier_trainer.inputs import fetch_model, open_output
from luthier_trainer.precision import Device, choose_precision
from luthier_trainer.prepared import Part, PreparedFolder, read_prepared
from luthier_trainer.processors import cpu_limit
from luthier_trainer.progress import Progress
from luthier_trainer.versions import as_published
from luthier_trainer.workspace import Workspace

log = logging.getLogger(__name__)


def train(run: RunDocument, workspace: Workspace, progress: Progress, *, bar: bool = False) -> Published:
    """Produce the version that the run document describes, or find that somebody else has.

    Args:
        run: with `resolved`, which *prepare* filled in.
        workspace: local folders.
        progress: what the outside sees.
        bar: draw a progress bar on standard error.

    Raises:
        TrainerError, StorageError: with one sentence of what is wrong and what to do.
    """
    spec, resolved = run.spec, _resolved(run)
    registry = open_output(run)
    if found := registry.find_run(resolved.run_key):
        return as_published(found, resolved.run_key)
    clock = _Clock()

    # Data and base model: exactly those that prepare saw.
    progress.enter("Downloading")
    with clock.part("download"):
        base = _fetch_base_model(run, resolved, workspace)
        registry.get_prepared(resolved.data_key, workspace.prepared, workspace.cache)
        prepared = read_prepared(workspace.prepared)

    # Device and precision.
    threads = cpu_limit()
    torch.set_num_threads(threads)
    device = detect_device()
    precision = choose_precision(spec.precision, device)
    arguments = training_arguments(
        spec, examples=len(prepared.train), precision=precision, device=device, folder=workspace.training
    )
    log.info("training on %s in %s with %d CPU threads", device.name, precision, threads)

    # Model: the pretrained encoder with a classification head, new unless the base model has one that fits.
    set_seed(spec.hyperparameters.seed)
    with clock.part("load"):
        model = load_classifier(base.folder, spec.model.uri, prepared.data.labels, prepared.data.pad_token_id)

    # Optimization: AdamW on batches of similar length; the best weights by the chosen metric are restored at the end.
    watcher = Watcher(progress, len(prepared.train), workspace.root / "log.jsonl", bar=bar)
    held_out = Examples(prepared.held_out, longest_first=True)
    trainer = ClassifierTrainer(
        model=model,
        args=arguments,
        train_dataset=Examples(prepared.train),
        eval_dataset=held_out,
        data_collator=padding(base, prepared.data.pad_token_id),
        compute_metrics=lambda output: classification_metrics(np.asarray(output[0]), np.asarray(output[1])),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)

    # Baselines: the most frequent label, and this very model before training.
    progress.enter("Evaluating")
    with clock.part("baseline"), _memory_errors(spec.hyperparameters):
        metrics = {"baseline_majority_accuracy": majority_accuracy(prepared.train.labels, prepared.held_out.labels)}
        metrics |= _named(trainer.evaluate(metric_key_prefix="untrained"))

    # Fit.
    if stopping := spec.hyperparameters.early_stopping:
        trainer.add_callback(EarlyStoppingCallback(stopping.patience, float(stopping.threshold)))
    with clock.part("fit"), _memory_errors(spec.hyperparameters):
        fitted = trainer.train()
    metrics |= {
        "train_loss": fitted.training_loss,
        "train_seconds": clock.seconds["fit"],
        "train_examples_per_second": fitted.metrics["train_samples_per_second"],
    }

    # Measure.
    progress.enter("Evaluating")
    with clock.part("evaluate"), _memory_errors(spec.hyperparameters):
        output = trainer.predict(held_out, metric_key_prefix="eval")
    logits, label_ids = np.asarray(output.predictions), np.asarray(output.label_ids)
    metrics |= _named(output.metrics)
    progress.measure(metrics)
    missed = missed_gates(spec.evaluation, metrics)

    # Export.
    progress.enter("Exporting")
    model.cpu().eval()  # type: ignore[no-untyped-call]
    workspace.artifact.mkdir(parents=True, exist_ok=True)
    onnx_difference = None
    with clock.part("export"):
        if ExportFormat.ONNX in spec.export:
            onnx_difference = export_onnx(
                model,
                workspace.artifact,
                prepared.held_out.input_ids,
                prepared.data.pad_token_id,
                threads=threads,
            )
        findings = Findings(
            metrics=metrics,
            missed_gates=missed,
            labels=per_label_report(logits, label_ids, prepared.data.labels),
            confusion=confusion(logits, label_ids, prepared.data.labels),
            history=trainer.state.log_history,
            steps=trainer.state.global_step,
            best_step=trainer.state.best_global_step,
            device=device.name,
            precision=precision,
            onnx_difference=onnx_difference,
            seconds=clock.seconds,
        )
        build_artifact(workspace, run, model, base, prepared, findings)

    # Publish.
    progress.enter("Uploading")
    with clock.part("upload"):
        version = _publish(registry, workspace, run, resolved, prepared, findings)
    progress.enter("Done")
    log.info("seconds: %s", " ".join(f"{name}={seconds:.1f}" for name, seconds in clock.seconds.items()))
    return as_published(version, resolved.run_key)


class Examples(Dataset[dict[str, Any]]):
    """One part of the prepared data. Sorted by length for evaluation, where order means nothing and padding costs."""

    def __init__(self, part: Part, *, longest_first: bool = False) -> None:
        self._part = part
        self._order = list(range(len(part)))
        if longest_first:
            self._order.sort(key=lambda index: -len(part.input_ids[index]))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = self._order[position]
        return {"input_ids": self._part.input_ids[index], "labels": self._part.labels[index]}


class ClassifierTrainer(Trainer):
    """Trainer that stops where the loss stops being a number, instead of training on for nothing."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute one batch's loss and gradients."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            raise LossNotFinite(f"The loss is {loss.item()} at step {self.state.global_step + 1}. {ADVICE}")
        return loss


def padding(base: BaseModel, pad_token_id: int) -> DataCollatorWithPadding:
    """Pad each batch to its longest text, with the prepared data's padding token."""
    tokenizer = base.tokenizer()
    padded = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=tokenizer.id_to_token(pad_token_id)
    )
    return DataCollatorWithPadding(padded)


def detect_device() -> Device:
    """Describe what torch trains on."""
    if not torch.cuda.is_available():
        return Device("the CPU", is_gpu=False, has_bf16=True)
    # Older GPUs emulate bf16, slower than fp32.
    has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    return Device(torch.cuda.get_device_name(), is_gpu=True, has_bf16=has_bf16)


def load_classifier(folder: Path, uri: str, labels: list[str], pad_token_id: int) -> PreTrainedModel:
    """Load the base model in fp32 with a classification head for the labels.

    Raises:
        InvalidModel: if the weights are not those of the architecture that config.json names.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: PreTrainedModel
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            problem_type="single_label_classification",
            # A head of another size is replaced by a new one; see below for what is not a head.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidModel(f"The base model {uri} cannot be loaded: {reason}") from error
    if lost := encoder_keys_without_weights(model.base_model_prefix, report):
        raise InvalidModel(
            f"The base model {uri} has no fitting weights for {len(lost)} tensors of its encoder, the first being "
            f"{lost[0]}; config.json and model.safetensors are not of one model."
        )
    model.config.pad_token_id = pad_token_id
    return model


def encoder_keys_without_weights(prefix: str, report: dict[str, Any]) -> list[str]:
    """Return the encoder's tensors that the file lacks or has in another shape.

    A pooler is part of the head: models that were pretrained without one get a new one.
    """
    missing = [str(key) for key in report["missing_keys"]]
    missing += [str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"]]
    return sorted(key for key in missing if key.startswith(f"{prefix}.") and ".pooler." not in key)


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
    return check_base_model(fetched.folder, run.spec.model.uri, max_length=run.spec.dataset.preprocessing.max_length)


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


def _named(measured: Mapping[str, float] | None) -> dict[str, float]:
    """Keep the metrics that Luthier promises; Trainer adds timings of its own."""
    return {name: float(value) for name, value in (measured or {}).items() if name in metric_names.ALL}


@contextmanager
def _memory_errors(parameters: Hyperparameters) -> Iterator[None]:
    """Say what to lower when memory does not suffice."""
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
