"""*prepare*: everything that can be known before a GPU is asked for.

    check the spec -> storage can be written -> fetch and identify the inputs -> is the run known already?
    -> read, clean, check, split and tokenize the data -> write it under prepared/<data key>

Runs on a CPU and imports no torch. Its answer is a `Prepared` document, or `Published` when the run was found.
"""

import logging
import time

from luthier_api.documents import Prepared, Published, Resolved, RunDocument
from luthier_api.keys import data_key, run_key
from luthier_api.training import TrainingSpec
from luthier_artifacts import Registry
from luthier_trainer.arguments import parse_training_arguments
from luthier_trainer.base_model import BaseModel, check_base_model
from luthier_trainer.cleaning import Cleaned, Example, clean
from luthier_trainer.errors import InvalidData
from luthier_trainer.inputs import FetchedDataset, FetchedModel, fetch_dataset, fetch_model, open_output
from luthier_trainer.metric_names import check_metric_names
from luthier_trainer.prepared import LAYOUT_VERSION, Part, PreparedData, part_path, read_description, write_descriptions
from luthier_trainer.progress import Progress
from luthier_trainer.quality import QualityReport, TokenLengths, check_gates, measure, order_labels, token_lengths
from luthier_trainer.readers import read_table
from luthier_trainer.splitting import split_examples, without_leakage
from luthier_trainer.tasks import task_of
from luthier_trainer.tokenization import encode
from luthier_trainer.versions import as_published
from luthier_trainer.workspace import Workspace

log = logging.getLogger(__name__)


def prepare(run: RunDocument, workspace: Workspace, progress: Progress) -> Prepared | Published:
    """Check the run, and write its data where *train* finds it.

    Raises:
        TrainerError, StorageError: with one sentence of what is wrong and what to do.
    """
    spec = run.spec
    check_metric_names(spec)
    parse_training_arguments(spec.training_arguments)

    progress.enter("Downloading")
    registry = open_output(run)
    registry.probe_conditional_writes()
    dataset = fetch_dataset(run, workspace.dataset)
    model = fetch_model(run, workspace.model, workspace.cache)
    base = check_base_model(model.folder, spec.model.uri, max_length=spec.dataset.preprocessing.max_length)

    resolved = resolve(run, dataset, model, base)
    if found := registry.find_run(resolved.run_key):
        log.info("found version %s of the same run; nothing is trained", found.version)
        return as_published(found, resolved.run_key)

    data, quality = _find_or_make(registry, resolved, spec, dataset, base, workspace)
    check_gates(quality, spec.dataset.quality)
    for warning in quality.warnings:
        log.warning(warning)
    return Prepared(
        resolved=resolved,
        train_examples=data.train_examples,
        eval_examples=data.eval_examples,
        labels=len(data.labels),
        warnings=quality.warnings,
    )


def resolve(run: RunDocument, dataset: FetchedDataset, model: FetchedModel, base: BaseModel) -> Resolved:
    """Say by digest what the inputs are, and which run that makes."""
    data = data_key(
        run.spec,
        dataset_digest=dataset.digest,
        tokenizer_digest=f"{base.tokenizer_digest}/layout-{LAYOUT_VERSION}",
    )
    return Resolved(
        run_key=run_key(run.spec, model_digest=model.digest, data_key=data, image=run.image),
        data_key=data,
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
    """Take the data that an earlier run prepared from the same inputs, or prepare it."""
    if registry.find_prepared(resolved.data_key):
        registry.get_prepared(resolved.data_key, workspace.prepared, workspace.cache)
        log.info("found the prepared data %.12s", resolved.data_key)
        return read_description(workspace.prepared)
    started = time.monotonic()
    data, quality = make_prepared(spec, dataset, base, workspace)
    # Data that misses a limit is not worth keeping.
    check_gates(quality, spec.dataset.quality)
    registry.put_prepared(resolved.data_key, workspace.made)
    log.info(
        "prepared %d training and %d evaluation examples of %d labels in %.1f s",
        data.train_examples,
        data.eval_examples,
        len(data.labels),
        time.monotonic() - started,
    )
    return data, quality


def make_prepared(
    spec: TrainingSpec, dataset: FetchedDataset, base: BaseModel, workspace: Workspace
) -> tuple[PreparedData, QualityReport]:
    """Read, clean, split and tokenize the data, and write it to the workspace."""
    preprocessing = spec.dataset.preprocessing
    files = [clean(read_table(dataset.train, spec.dataset.train), preprocessing)]
    if spec.dataset.eval and dataset.eval:
        files.append(clean(read_table(dataset.eval, spec.dataset.eval), preprocessing))
    labels = order_labels(spec.labels, files)
    learned, held_out = _parts(spec, files)
    train = without_leakage(learned, held_out)
    if not train:
        raise InvalidData(
            "Every training text is also among the examples for evaluation, so there is nothing to learn."
        )

    train_part, train_lengths = _tokenize(spec, train, labels, base, preprocessing.max_length)
    eval_part, eval_lengths = _tokenize(spec, held_out, labels, base, preprocessing.max_length)
    quality = measure(
        files,
        labels,
        train,
        held_out,
        leaked=len(learned) - len(train),
        lengths={"train": train_lengths, "eval": eval_lengths},
    )
    data = PreparedData(
        layout_version=LAYOUT_VERSION,
        labels=labels,
        max_length=preprocessing.max_length,
        pad_token_id=base.pad_token_id,
        train_examples=len(train),
        eval_examples=len(held_out),
    )
    workspace.made.mkdir(parents=True, exist_ok=True)
    train_part.write(part_path(workspace.made, "train"))
    eval_part.write(part_path(workspace.made, "eval"))
    write_descriptions(workspace.made, data, quality)
    return data, quality


def _parts(spec: TrainingSpec, files: list[Cleaned]) -> tuple[list[Example], list[Example]]:
    split = spec.dataset.effective_split()
    if split is None:
        return files[0].examples, files[1].examples
    return split_examples(files[0].examples, split)


def _tokenize(
    spec: TrainingSpec, examples: list[Example], labels: list[str], base: BaseModel, max_length: int
) -> tuple[Part, TokenLengths]:
    index = {label: position for position, label in enumerate(labels)}
    texts = [example.text for example in examples]
    encoded = encode(base.tokenizer(), texts, max_length)
    targets = [index[example.label] for example in examples]
    part = Part.of(encoded.ids, targets, task_of(spec.task).target_type, texts=texts)
    return part, token_lengths(encoded.lengths, max_length)
