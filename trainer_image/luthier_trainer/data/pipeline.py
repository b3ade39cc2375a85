"""From the dataset's files to prepared data: read, clean, partition, check, tokenize, write.

Streams: a batch of texts is in memory at a time, and of every example about 100 bytes of hashes and numbers. Texts wait
on disk between the two passes, of which the first finds out everything that can be wrong before the second, which takes
longest, tokenizes.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Task, TrainingSpec
from luthier_trainer.data.cleaning import Cleaner
from luthier_trainer.data.dataset import FetchedDataset
from luthier_trainer.data.indicators import has_indicators, indicator_names
from luthier_trainer.data.labels import Labels, SeenLabels
from luthier_trainer.data.partition import PARTS, PartRows, partition
from luthier_trainer.data.quality import OUTLIERS_SHOWN, length_limits, measure, token_lengths, with_tokens
from luthier_trainer.data.quality_gates import check_gates
from luthier_trainer.data.scripts import ScriptCount
from luthier_trainer.data.staging import BATCH_ROWS, stage
from luthier_trainer.data.tokenization import Encoded, TextEncoder
from luthier_trainer.formats.prepared import (
    LAYOUT_VERSION,
    PartName,
    PartWriter,
    PreparedData,
    part_path,
    schema_of,
    write_descriptions,
)
from luthier_trainer.formats.quality_report import LabelCount, Outliers, QualityReport
from luthier_trainer.models.base_model import BaseModel
from luthier_trainer.runtime.errors import InvalidData
from luthier_trainer.tasks.interface import TaskModule
from luthier_trainer.tasks.label_parsing import canonical
from luthier_trainer.tasks.registry import task_of


def make_prepared(
    spec: TrainingSpec, dataset: FetchedDataset, base: BaseModel, into: Path, *, batch_rows: int = BATCH_ROWS
) -> tuple[PreparedData, QualityReport]:
    """Write the prepared data to a folder.

    Args:
        spec: how the data is to be read, cleaned and divided.
        dataset: its files.
        base: whose tokenizer is used.
        into: is made; what an earlier attempt left there goes. Beside it a folder `staging` comes and goes.
        batch_rows: examples that wait on disk together.

    Raises:
        InvalidData: in one sentence, if the data cannot be read, says nothing, or misses a limit.
    """
    task = task_of(spec.task)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    with _emptied(into.with_name("staging")) as scratch:
        seen_labels, scripts = SeenLabels(), ScriptCount()
        cleaners = _cleaners(spec, task, dataset)
        known_labels = frozenset(spec.dataset.label_map or spec.labels or ())
        inputs = {
            part: stage(
                dataset.names[part],
                sources,
                cleaners[part],
                seen_labels,
                scripts,
                scratch / part,
                known_labels=known_labels,
                tolerant=spec.dataset.quality.max_malformed_fraction > 0,
                batch_rows=batch_rows,
            )
            for part, sources in dataset.files.items()
        }
        met = set[str]().union(*(cleaner.met for cleaner in cleaners.values()))
        warnings = seen_labels.check_map(cleaners["train"].label_map, met)
        labels = _choose_labels(spec, task, seen_labels)
        parts, files, leakage = partition(spec.dataset, inputs)
        report = measure(
            files,
            {part: len(chosen.rows) for part, chosen in parts.items()},
            _label_counts(task, labels, parts) if task.loss != "mean-squared-error" else {},
            {part: chosen.staged.values[chosen.rows] for part, chosen in parts.items() if len(chosen.staged.values)},
            leakage=leakage,
            scripts=scripts.shares(),
            warnings=warnings,
        )
        check_gates(report, spec.dataset.quality)

        lengths = {part: _write(spec, task, labels, chosen, base, into, part) for part, chosen in parts.items()}
        report = with_tokens(
            report,
            {part: token_lengths(found, spec.dataset.preprocessing.max_length) for part, found in lengths.items()},
            {part: _outliers(parts[part], found) for part, found in lengths.items()},
        )
    data = PreparedData(
        layout_version=LAYOUT_VERSION,
        labels=labels.names,
        max_length=spec.dataset.preprocessing.max_length,
        pad_token_id=base.pad_token_id,
        pairs=spec.dataset.train.text_pair_column is not None,
        train_examples=len(parts["train"].rows),
        eval_examples=len(parts["eval"].rows),
        test_examples=len(parts["test"].rows) if "test" in parts else 0,
    )
    write_descriptions(into, data, report)
    return data, report


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Give an empty folder; one that a killed attempt left is as large as the data."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _file(spec: TrainingSpec, part: PartName) -> DataFile:
    file = {"train": spec.dataset.train, "eval": spec.dataset.eval, "test": spec.dataset.test}[part]
    assert file is not None
    return file


def _cleaners(spec: TrainingSpec, task: TaskModule, dataset: FetchedDataset) -> dict[PartName, Cleaner]:
    label_map = {canonical(name): other for name, other in (spec.dataset.label_map or {}).items()}
    made: dict[PartName, Cleaner] = {}
    vectors = False
    for part, sources in dataset.files.items():
        file = _file(spec, part)
        names: Sequence[str] | None = file.label_columns
        if task.name is Task.MULTI_LABEL and names is None:
            found = has_indicators(sources, file)
            # What may be either is what the training data is, of which the first part is made.
            vectors = (vectors or part == "train") if found is None else found
            names = indicator_names(sources, file, spec.labels) if vectors else None
        made[part] = Cleaner(task, file, spec.dataset.preprocessing, label_map, names)
    return made


def _names_of_columns(spec: TrainingSpec) -> list[str] | None:
    """Return the labels that labelColumns name, also one that no text has."""
    names = spec.dataset.label_map or {}
    return list(dict.fromkeys(names.get(each, each) for each in spec.dataset.train.label_columns or ())) or None


def _choose_labels(spec: TrainingSpec, task: TaskModule, seen_labels: SeenLabels) -> Labels:
    match task.loss:
        case "mean-squared-error":
            # There the one output is the number, and its name that of the column.
            return Labels([spec.dataset.train.label_column], {})
        case "binary-cross-entropy":
            return seen_labels.resolve(spec.labels or _names_of_columns(spec), least=1)
        case "cross-entropy":
            return seen_labels.resolve(spec.labels, least=2)


def _label_counts(task: TaskModule, labels: Labels, parts: dict[PartName, PartRows]) -> dict[str, LabelCount]:
    counts: dict[PartName, Counter[int]] = {part: Counter() for part in PARTS}
    for part, chosen in parts.items():
        for batch in chosen.staged.batches(chosen.rows, labels_only=True):
            for label in _parsed(batch):
                counts[part].update(labels.index[word] for word in task.label_names(label))
    return {
        name: LabelCount(**{part: counts[part][position] for part in PARTS})
        for position, name in enumerate(labels.names)
    }


def _parsed(batch: pa.RecordBatch) -> Iterator[Any]:
    for label in batch.column("label").to_pylist():
        yield tuple(label) if isinstance(label, list) else label


def _write(
    spec: TrainingSpec,
    task: TaskModule,
    labels: Labels,
    chosen: PartRows,
    base: BaseModel,
    into: Path,
    part: PartName,
) -> npt.NDArray[np.int32]:
    """Tokenize one part into its file, and return the examples' lengths before they were cut."""
    encoder = TextEncoder(
        base.tokenizer(),
        spec.dataset.preprocessing.max_length,
        pairs=spec.dataset.train.text_pair_column is not None,
        per_token=task.per_token,
    )
    lengths: list[npt.NDArray[np.int32]] = []
    schema = schema_of(task.target_type)
    end = None if task.per_token else base.end_token_id
    ends = 0 if end is None else encoder.without_text().count(end)
    batches = (
        (batch, batch.column("text").to_pylist(), batch.column("pair").to_pylist())
        for batch in chosen.staged.batches(chosen.rows)
    )
    with PartWriter(part_path(into, part), schema) as writer:
        for batch, encoded in encoder.encode_ahead(batches):
            if end is not None:
                _check_ends(encoded.ids, end, ends, base, chosen, sum(map(len, lengths)))
            writer.write(_record_batch(task, labels, batch, encoded, schema))
            lengths.append(np.array(encoded.lengths, dtype=np.int32))
    return np.concatenate(lengths)


def _check_ends(ids: list[list[int]], end: int, ends: int, base: BaseModel, chosen: PartRows, first: int) -> None:
    """Refuse a text that holds the token at which the model reads a text off: it would end the training."""
    for place, each in enumerate(ids, first):
        if each.count(end) != ends:
            token = base.tokenizer().id_to_token(end)
            raise InvalidData(
                f"{chosen.staged.place(int(chosen.rows[place]))} holds {token!r} in its text, which is the token by "
                f"which a model of type {base.model_type!r} finds the end; take it out of the texts, or use another "
                "base model."
            )


def _record_batch(
    task: TaskModule, labels: Labels, batch: pa.RecordBatch, encoded: Encoded, schema: pa.Schema
) -> pa.RecordBatch:
    words: Sequence[list[int | None] | None] = encoded.word_ids or [None] * batch.num_rows
    targets = [task.encode(label, labels.index, each) for label, each in zip(_parsed(batch), words, strict=True)]
    text = batch.column("text")
    if pa.types.is_list(text.type):
        text = pa.array([" ".join(each) for each in text.to_pylist()])
    columns = (encoded.ids, encoded.second_starts, targets)
    arrays = [pa.array(each, type=field.type) for each, field in zip(columns, schema, strict=False)]
    return pa.RecordBatch.from_arrays([*arrays, text, batch.column("pair")], schema=schema)


def _outliers(chosen: PartRows, lengths: npt.NDArray[np.int32]) -> Outliers:
    shortest, longest = length_limits(lengths)
    short, long = (np.flatnonzero(mask) for mask in (lengths < shortest, lengths > longest))
    return Outliers(
        shorter_than=shortest,
        longer_than=longest,
        short=len(short),
        long=len(long),
        places=[
            f"{chosen.staged.place(int(chosen.rows[index]))}: {lengths[index]} tokens"
            for index in (*short[:OUTLIERS_SHOWN], *long[:OUTLIERS_SHOWN])
        ],
    )
