"""Cleaned examples of one input: their texts on disk, and in memory the little that decides what becomes of them.

    readers -> cleaning -> here -> duplicates, splitting (row numbers) -> tokenization

In memory an example takes about 50 bytes whatever its length: hashes of text and label, its stratum and its place.
Texts are compared by 128 bits of BLAKE2b: among a billion of them two that differ are taken for equal with a
probability of 10^-21. Texts are read back batch by batch, never as a memory map, whose pages would count as memory.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile
from luthier_artifacts.readers.formats import SourceFile, read_rows
from luthier_artifacts.readers.rows import Reading, Text
from luthier_trainer.data.cleaning import Cleaner, Example
from luthier_trainer.data.labels import SeenLabels
from luthier_trainer.data.scripts import ScriptCount
from luthier_trainer.formats.prepared import PartWriter
from luthier_trainer.runtime.errors import InvalidData
from luthier_trainer.tasks.interface import ParsedLabel

# A batch ends with whichever comes first; the second keeps memory in bounds where texts are long.
BATCH_ROWS = 10_000
BATCH_CHARACTERS = 8_000_000

COLUMNS = ("text", "pair", "label")

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Staged:
    """The cleaned examples of one input, in the order of its files.

    Attributes:
        name: how to speak of the input.
        read: rows read.
        missing: rows without text or label, which are not here.
        reading: how the files were read, and rows that could not be, which are not here either.
        texts: [examples, 2] hash of each text, or pair of texts.
        labels: [examples] hash of each label.
        strata: [examples] index into stratum_names.
        stratum_names: what a stratified split keeps the share of.
        values: [examples] the numbers, where labels are numbers, else empty.
    """

    name: str
    read: int
    missing: int
    reading: Reading
    texts: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.uint64]
    strata: npt.NDArray[np.int64]
    stratum_names: list[str]
    values: npt.NDArray[np.float64]
    sources: list[SourceFile]
    source_starts: list[int]
    numbers: Rows
    path: Path

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, row: int) -> str:
        """Name the place of an example for people."""
        source = self.sources[bisect_right(self.source_starts, row) - 1]
        return source.place(int(self.numbers[row]))

    def batches(self, rows: Rows, *, labels_only: bool = False) -> Iterator[pa.RecordBatch]:
        """Read the examples of these row numbers, which must ascend: columns text, pair and label, or label alone."""
        options = pa.ipc.IpcReadOptions(included_fields=[COLUMNS.index("label")] if labels_only else [])
        with pa.OSFile(str(self.path), "rb") as file:
            reader = pa.ipc.open_file(file, options=options)
            waiting: list[pa.RecordBatch] = []
            start = 0
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                low, high = np.searchsorted(rows, [start, start + batch.num_rows])
                if low < high:
                    waiting.append(batch.take(pa.array(rows[low:high] - start)))
                start += batch.num_rows
                if _is_enough(waiting):
                    yield pa.concat_batches(waiting)
                    waiting = []
            if waiting:
                yield pa.concat_batches(waiting)


def _is_enough(batches: list[pa.RecordBatch]) -> bool:
    """Few examples of many batches make one of about the usual size."""
    rows: int = sum(batch.num_rows for batch in batches)
    size_bytes: int = sum(batch.nbytes for batch in batches)
    return 2 * rows >= BATCH_ROWS or 2 * size_bytes >= BATCH_CHARACTERS


def stage(
    name: str,
    sources: list[SourceFile],
    cleaner: Cleaner,
    seen_labels: SeenLabels,
    scripts: ScriptCount,
    path: Path,
    *,
    known_labels: frozenset[str] = frozenset(),
    tolerant: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> Staged:
    """Read and clean all files of an input.

    Args:
        name: how to speak of the input.
        sources: its files, in order.
        cleaner: makes examples of rows.
        seen_labels: receives every label.
        scripts: receives every text.
        path: where the texts are to lie.
        known_labels: what the spec calls the labels in the files.
        tolerant: leave out rows that cannot be read, to be counted by the limits.
        batch_rows: examples of one batch on disk.

    Raises:
        InvalidData: if a file cannot be read, or nothing is left.
    """
    stager = _Stager(path, scripts, batch_rows)
    reading = Reading(tolerant=tolerant)
    read = missing = 0
    source_starts = []
    try:
        for source in sources:
            source_starts.append(len(stager))
            rows = read_rows(
                source, cleaner.file, words=cleaner.task.per_token, known_labels=known_labels, reading=reading
            )
            for row in rows:
                try:
                    example = cleaner.clean(row, source)
                except InvalidData as error:
                    reading.fault(str(error))
                    continue
                read += 1
                if example is None:
                    missing += 1
                    continue
                seen_labels.add(cleaner.task.label_names(example.label), source, row.number)
                stager.add(example, cleaner.task.stratum(example.label))
    finally:
        stager.close()
    if not read and reading.faults:
        raise InvalidData(f"{name} holds no row that can be read. {reading.faults[0]}")
    if not read:
        raise InvalidData(f"{name} holds no rows.")
    if not len(stager):
        raise InvalidData(f"{name} holds {read} rows, and none of them has {_wanted(cleaner.file)}.")
    return Staged(
        name=name,
        read=read + reading.malformed,
        missing=missing,
        reading=reading,
        texts=np.frombuffer(stager.texts, dtype=np.uint64).reshape(-1, 2),
        labels=np.frombuffer(stager.labels, dtype=np.uint64),
        strata=np.frombuffer(stager.strata, dtype=np.int64),
        stratum_names=list(stager.stratum_index),
        values=np.frombuffer(stager.values, dtype=np.float64),
        sources=sources,
        source_starts=source_starts,
        numbers=np.frombuffer(stager.numbers, dtype=np.int64),
        path=path,
    )


def _wanted(file: DataFile) -> str:
    return "both texts and a label" if file.text_pair_column is not None else "both a text and a label"


class _Stager:
    """Collects examples, and writes their texts whenever a batch is full."""

    def __init__(self, path: Path, scripts: ScriptCount, batch_rows: int) -> None:
        self.texts, self.labels = bytearray(), bytearray()
        self.strata, self.numbers, self.values = array("q"), array("q"), array("d")
        self.stratum_index: dict[str, int] = {}
        self._path, self._scripts, self._batch_rows = path, scripts, batch_rows
        self._writer: PartWriter | None = None
        self._batch: list[Example] = []
        self._characters = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, example: Example, stratum: str) -> None:
        """Keep an example."""
        shown = _joined(example)
        self.texts += blake2b(shown.encode(), digest_size=16).digest()
        self.labels += _label_hash(example.label)
        self.strata.append(self.stratum_index.setdefault(stratum, len(self.stratum_index)))
        self.numbers.append(example.number)
        if isinstance(example.label, float):
            self.values.append(example.label)
        self._batch.append(example)
        self._characters += len(shown)
        if len(self._batch) >= self._batch_rows or self._characters >= BATCH_CHARACTERS:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        if self._batch:
            self._flush()
        if self._writer:
            self._writer.close()

    def _flush(self) -> None:
        schema = _schema(self._batch[0])
        if self._writer is None:
            self._writer = PartWriter(self._path, schema)
        texts, pairs, labels, _ = zip(*self._batch, strict=True)
        self._scripts.add(_joined(example) for example in self._batch)
        arrays = [pa.array(v, type=f.type) for v, f in zip((texts, pairs, labels), schema, strict=True)]
        self._writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
        self._batch, self._characters = [], 0


def _joined(example: Example) -> str:
    """Return all texts of an example as one; readers refuse NUL in a text, so that no two become the same."""
    text = example.text if isinstance(example.text, str) else "\0".join(example.text)
    return text if example.pair is None else f"{text}\0{example.pair}"


@lru_cache(maxsize=4096)
def _label_hash(label: ParsedLabel) -> bytes:
    return blake2b(repr(label).encode(), digest_size=8).digest()


def _schema(example: Example) -> pa.Schema:
    """Return the columns on disk; all examples of a task are of the same types."""
    types = (_arrow_type(example.text), pa.string(), _arrow_type(example.label))
    return pa.schema(zip(COLUMNS, types, strict=True))


def _arrow_type(value: Text | ParsedLabel) -> Any:
    if isinstance(value, float):
        return pa.float64()
    return pa.string() if isinstance(value, str) else pa.list_(pa.string())
