"""*prepare*: everything that can be done before a GPU is requested.

    check the spec -> storage can be written -> fetch and identify the inputs
    -> was the run done before? does another run train the same just now? (then wait for its version)
    -> read, clean, check, split and tokenize the data (`pipeline`) -> write it under prepared/<data key>

Runs on a CPU and imports no torch. Its answer is a `Prepared` document, or `Published` when the run was found.
"""

import logging
import time

from luthier_api.base import MAX_WARNING_CHARACTERS, MAX_WARNINGS
from luthier_api.documents import Prepared, Published, Resolved, RunDocument
from luthier_api.keys import data_key, run_key, weights_key
from luthier_api.training import TrainingSpec
from luthier_artifacts import Registry
from luthier_trainer.data.dataset import FetchedDataset, fetch_dataset
from luthier_trainer.data.pipeline import make_prepared
from luthier_trainer.data.quality_gates import check_gates
from luthier_trainer.formats.prepared import LAYOUT_VERSION, PreparedData, read_description
from luthier_trainer.formats.quality_report import QualityReport
from luthier_trainer.models.base_model import BaseModel, check_base_model
from luthier_trainer.models.fetch import FetchedModel, fetch_model
from luthier_trainer.models.head_rows import head_note
from luthier_trainer.publish.kept_weights import find_weights
from luthier_trainer.publish.published import as_published
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.storage import open_output
from luthier_trainer.runtime.turns import turn_to_prepare
from luthier_trainer.runtime.workspace import Workspace
from luthier_trainer.spec.ineffective_settings import ineffective_settings
from luthier_trainer.spec.metric_names import check_metric_names
from luthier_trainer.spec.scheduler_arguments import check_scheduler_arguments
from luthier_trainer.spec.training_arguments import parse_training_arguments
from luthier_trainer.tasks.registry import task_of

log = logging.getLogger(__name__)


def prepare(run: RunDocument, workspace: Workspace, progress: Progress) -> Prepared | Published:
    """Check the run, and store its prepared data for *train*.

    Raises:
        TrainerError, StorageError: with one sentence of what is wrong and what to do.
    """
    spec = run.spec
    check_metric_names(spec)
    parse_training_arguments(spec.training_arguments)
    check_scheduler_arguments(spec)
    check_dataset(spec)

    progress.enter("Downloading")
    registry = open_output(run, progress.record_waiting)
    registry.probe_conditional_writes()
    dataset = fetch_dataset(run, workspace.dataset)
    model = fetch_model(run, workspace.model, workspace.cache)
    base = check_base_model(
        model.folder,
        spec.model.uri,
        auto_class=task_of(spec.task).auto_class,
        max_length=spec.dataset.preprocessing.max_length,
        pairs=spec.dataset.train.text_pair_column is not None,
    )

    resolved = resolve(run, dataset, model, base)
    with turn_to_prepare(run, open_output(run), resolved, progress) as turn:
        made, found = None, turn.wait()
        if found is None:
            progress.enter("Downloading")
            made = _find_or_make(registry, resolved, spec, dataset, base, workspace)
        if turn.lost:
            # Another run has begun to train the same, as one that waited in a queue for its GPU.
            found = turn.wait()
    if found:
        # Quality limits are not part of the run key, so the current ones are checked here.
        check_gates(QualityReport.model_validate(found.manifest.lineage.dataset_quality), spec.dataset.quality)
        log.info("found version %s of the same run; nothing is trained", found.version)
        return as_published(found, resolved.run_key)

    assert made
    data, quality = made
    if version := find_weights(registry, resolved):
        log.info("version %s has the weights already; other exports and gates are made of them", version)
        resolved = resolved.model_copy(update={"weights_version": version})
    task = task_of(spec.task)
    numbers = task.loss == "mean-squared-error"
    note = head_note(base, spec.model.uri, task.auto_class, data.labels, numbers=numbers)
    # What the numbers of this run say comes before what is odd in the data, which the report has too.
    warnings = [*([note] if note else []), *ineffective_settings(spec, data.train_examples), *quality.warnings]
    for warning in warnings:
        log.warning(warning)
    return Prepared(
        resolved=resolved,
        train_examples=data.train_examples,
        eval_examples=data.eval_examples,
        test_examples=data.test_examples,
        labels=len(data.labels),
        warnings=[warning[:MAX_WARNING_CHARACTERS] for warning in warnings[:MAX_WARNINGS]],
    )


def check_dataset(spec: TrainingSpec) -> None:
    """Reject a split that leaves no training data; everything else is checked where the spec is parsed.

    Raises:
        InvalidSpec: in one sentence.
    """
    split = spec.dataset.effective_split()
    if split and split.fraction + split.test_fraction >= 1:
        raise InvalidSpec(
            f"split.fraction = {split.fraction} and split.testFraction = {split.test_fraction} leave no training "
            "data; lower them."
        )


def resolve(run: RunDocument, dataset: FetchedDataset, model: FetchedModel, base: BaseModel) -> Resolved:
    """Identify the inputs by digest, and compute the run key."""
    data = data_key(
        run.spec,
        dataset_digest=dataset.digest,
        tokenizer_digest=f"{base.tokenizer_digest}/layout-{LAYOUT_VERSION}",
    )
    return Resolved(
        run_key=run_key(run.spec, model_digest=model.digest, data_key=data, image=run.image),
        data_key=data,
        weights_key=weights_key(run.spec, model_digest=model.digest, data_key=data, image=run.image),
        model_digest=model.digest,
        model_revision=model.revision,
        dataset_digest=dataset.digest,
        image=run.image,
    )


def _find_or_make(
    registry: Registry,
    resolved: Resolved,
    spec: TrainingSpec,
    dataset: FetchedDataset,
    base: BaseModel,
    workspace: Workspace,
) -> tuple[PreparedData, QualityReport]:
    """Reuse the data that an earlier run prepared from the same inputs, or prepare it."""
    if registry.find_prepared(resolved.data_key):
        registry.get_prepared(resolved.data_key, workspace.prepared, workspace.cache)
        log.info("found the prepared data %.12s", resolved.data_key)
        found = read_description(workspace.prepared)
        # It passed the limits of another spec.
        check_gates(found[1], spec.dataset.quality)
        return found
    started = time.monotonic()
    data, quality = make_prepared(spec, dataset, base, workspace.made)
    # What only the tokens say; the rest was checked before. Data that misses a limit is not worth keeping.
    check_gates(quality, spec.dataset.quality)
    registry.put_prepared(resolved.data_key, workspace.made)
    log.info(
        "prepared %d training and %d evaluation examples%s of %d labels in %.1f s",
        data.train_examples,
        data.eval_examples,
        f" and {data.test_examples} for the test" if data.test_examples else "",
        len(data.labels),
        time.monotonic() - started,
    )
    return data, quality
