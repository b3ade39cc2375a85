"""The prepared data as files: written by *prepare*, kept in the registry under prepared/<data key>/, read by *train*.

    train.arrow, eval.arrow, test.arrow   one row for each example, as `schema_of` says; test only where there is one
    prepared.json                         PreparedData: labels, counts and what reads them
    quality.json                          QualityReport

Owns that layout and nothing of what is in it. Files are read by memory map: what a process does not touch takes no
memory, and ranks on one node share what they do. `LAYOUT_VERSION` is part of the data key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.base import Document
from luthier_trainer.formats.quality_report import QualityReport

LAYOUT_VERSION = 4
PREPARED_FILE = "prepared.json"
QUALITY_FILE = "quality.json"

PartName = Literal["train", "eval", "test"]
Ids = npt.NDArray[np.int32]


class PreparedData(Document):
    """What the Arrow files hold.

    Attributes:
        labels: in the order of the model's outputs.
        pairs: whether examples are pairs of texts.
    """

    layout_version: int
    labels: list[str]
    max_length: int
    pad_token_id: int
    pairs: bool = False
    train_examples: int
    eval_examples: int
    test_examples: int = 0


def schema_of(target: pa.DataType) -> pa.Schema:
    """Return the columns of a part.

    input_ids: token ids, special tokens included. second_start: position of the second text's first token, 0 without
    one. target: what is to be learned, of the task's type. text, text_pair: as tokenized, for people.
    """
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.int32())),
            ("second_start", pa.int32()),
            ("target", target),
            ("text", pa.string()),
            ("text_pair", pa.string()),
        ]
    )


class Part:
    """Tokenized examples of one part, in memory-mapped columns.

    Attributes:
        lengths: [examples] tokens of each.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = [batch for batch in batches if batch.num_rows]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._ids = [_flat(batch.column("input_ids")) for batch in self._batches]
        self.lengths: Ids = np.concatenate([np.diff(o) for o, _ in self._ids] or [np.zeros(0)]).astype(np.int32)

    @classmethod
    def of(
        cls,
        input_ids: Sequence[Sequence[int]],
        targets: Sequence[Any],
        target_type: pa.DataType,
        *,
        texts: Sequence[str] | None = None,
        pairs: Sequence[str | None] | None = None,
        second_starts: Sequence[int] | None = None,
    ) -> Self:
        """Make a part in memory."""
        count = len(input_ids)
        columns = (input_ids, second_starts or [0] * count, targets, texts or [""] * count, pairs or [None] * count)
        schema = schema_of(target_type)
        arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
        return cls([pa.RecordBatch.from_arrays(arrays, schema=schema)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def input_ids(self, index: int) -> Ids:
        """Return one example's token ids [tokens], without a copy."""
        batch, row = self._place(index)
        offsets, values = self._ids[batch]
        return values[offsets[row] : offsets[row + 1]]

    def second_start(self, index: int) -> int:
        """Return where the second text begins, 0 without one."""
        return int(self._cell("second_start", index))

    def target(self, index: int) -> Any:
        """Return what is to be learned from one example."""
        return self._cell("target", index)

    def targets(self) -> pa.ChunkedArray:
        """Return that of all examples."""
        return pa.chunked_array([batch.column("target") for batch in self._batches])

    def text(self, index: int) -> str:
        """Return the text, for people."""
        return str(self._cell("text", index))

    def text_pair(self, index: int) -> str | None:
        """Return the second text, if there is one."""
        found: str | None = self._cell("text_pair", index)
        return found

    def _place(self, index: int) -> tuple[int, int]:
        batch = int(np.searchsorted(self._starts, index, side="right")) - 1
        return batch, index - int(self._starts[batch])

    def _cell(self, column: str, index: int) -> Any:
        batch, row = self._place(index)
        return self._batches[batch].column(column)[row].as_py()


def _flat(column: pa.ListArray) -> tuple[npt.NDArray[np.int32], Ids]:
    """Return offsets and values of a column of lists, without copies."""
    return column.offsets.to_numpy(), column.values.to_numpy()


class PartWriter:
    """Writes a part batch by batch."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add examples."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Finish the file; it cannot be read before."""
        self._writer.close()
        self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class PreparedFolder:
    """A folder of this layout, read.

    Attributes:
        held_out: the evaluation split, which selects the model.
        test: the test split, never used for model selection; None without one.
    """

    data: PreparedData
    quality: QualityReport
    train: Part
    held_out: Part
    test: Part | None


def write_descriptions(folder: Path, data: PreparedData, quality: QualityReport) -> None:
    """Write what is said about the data; the parts lie there already."""
    (folder / PREPARED_FILE).write_text(data.to_json(indent=2) + "\n")
    (folder / QUALITY_FILE).write_text(quality.to_json(indent=2) + "\n")


def read_description(folder: Path) -> tuple[PreparedData, QualityReport]:
    """Read what is said about the data, without the data."""
    data = PreparedData.from_json((folder / PREPARED_FILE).read_bytes())
    return data, QualityReport.from_json((folder / QUALITY_FILE).read_bytes())


def read_prepared(folder: Path) -> PreparedFolder:
    """Read all files of the layout."""
    data, quality = read_description(folder)
    test = read_part(folder, "test") if data.test_examples else None
    return PreparedFolder(data, quality, read_part(folder, "train"), read_part(folder, "eval"), test)


def part_path(folder: Path, name: PartName) -> Path:
    """Return where a part lies."""
    return folder / f"{name}.arrow"


def read_part(folder: Path, name: PartName) -> Part:
    """Map one part."""
    with pa.memory_map(str(part_path(folder, name))) as source:
        reader = pa.ipc.open_file(source)
        return Part([reader.get_batch(number) for number in range(reader.num_record_batches)])
