"""The prepared data as files: written by *prepare*, kept in the registry under prepared/<data key>/, read by *train*.

    train.arrow, eval.arrow   columns input_ids (list<int32>), label (int32, an index into labels), text (string)
    prepared.json             PreparedData: labels, counts and what reads them
    quality.json              QualityReport

Owns that layout and nothing of what is in it. `LAYOUT_VERSION` is part of the data key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from luthier_api.base import Document
from luthier_trainer.quality import QualityReport

LAYOUT_VERSION = 1
PREPARED_FILE = "prepared.json"
QUALITY_FILE = "quality.json"

_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int32()), ("text", pa.string())])


class PreparedData(Document):
    """What the Arrow files hold."""

    layout_version: int
    labels: list[str]
    max_length: int
    pad_token_id: int
    train_examples: int
    eval_examples: int


@dataclass(frozen=True)
class Part:
    """Tokenized examples of one part, column by column."""

    input_ids: list[list[int]]
    labels: list[int]
    texts: list[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PreparedFolder:
    """A folder of this layout, read."""

    data: PreparedData
    quality: QualityReport
    train: Part
    held_out: Part


def write_prepared(folder: Path, data: PreparedData, quality: QualityReport, train: Part, held_out: Part) -> None:
    """Write all files of the layout."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_part(folder / "train.arrow", train)
    _write_part(folder / "eval.arrow", held_out)
    (folder / PREPARED_FILE).write_text(data.to_json(indent=2) + "\n")
    (folder / QUALITY_FILE).write_text(quality.to_json(indent=2) + "\n")


def read_description(folder: Path) -> tuple[PreparedData, QualityReport]:
    """Read what is said about the data, without the data."""
    data = PreparedData.from_json((folder / PREPARED_FILE).read_bytes())
    return data, QualityReport.from_json((folder / QUALITY_FILE).read_bytes())


def read_prepared(folder: Path) -> PreparedFolder:
    """Read all files of the layout."""
    data, quality = read_description(folder)
    return PreparedFolder(data, quality, _read_part(folder / "train.arrow"), _read_part(folder / "eval.arrow"))


def _write_part(path: Path, part: Part) -> None:
    columns: Sequence[object] = (part.input_ids, part.labels, part.texts)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_table(table)


def _read_part(path: Path) -> Part:
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        return Part(*(table.column(name).to_pylist() for name in _SCHEMA.names))
