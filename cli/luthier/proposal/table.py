"""The rows of a .csv, .tsv, .jsonl or .parquet file, optionally .gz, as text."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import Invalid, LuthierError, NotFound

MAX_ROWS = 50_000
_SEPARATORS = ",;\t|"
# A text of a whole book in a cell is no reason to stop.
_FIELD_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Table:
    """Rows by column; a missing cell is an empty text, and a list is its JSON."""

    columns: dict[str, list[str]]
    whole: bool
    """Whether these are all rows of the file."""
    encoding: str | None = None
    """Set if it is not UTF-8."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path, limit: int = MAX_ROWS) -> Table:
    """Return the first rows of a file.

    Raises:
        NotFound: if there is no such file.
        Invalid: if it has no rows, or is in a format that is not read.
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path}.")
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending == "parquet":
        table = _parquet(path, limit)
    elif ending in ("csv", "tsv", "jsonl", "ndjson"):
        text, encoding = _decoded(_bytes(path))
        rows = _json_rows(text, path) if "json" in ending else _csv_rows(text, path, ending)
        table = _by_column(rows, limit, encoding)
    else:
        raise Invalid(f"{path.name} is not read: give a .csv, .tsv, .jsonl or .parquet file, optionally with .gz.")
    if table.rows == 0:
        raise Invalid(f"{path.name} has no rows.")
    return table


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if path.name.lower().endswith(".gz") else data
    except (OSError, EOFError) as error:
        raise Invalid(f"{path.name} is no gzip file: {error}.") from error


def _decoded(data: bytes) -> tuple[str, str | None]:
    """Return the text, and its encoding if the resource has to name it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # the trainer sees the mark too
        return data.decode("utf-16"), None
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        # What spreadsheets in Western Europe write; bytes that it lacks are shown, and it is named in the manifest.
        return data.decode("cp1252", errors="replace"), "cp1252"


def _csv_rows(text: str, path: Path, ending: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_FIELD_LIMIT)
    first = text.split("\n", 1)[0]
    separator = "\t" if ending == "tsv" and "\t" in first else max(_SEPARATORS, key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    if not reader.fieldnames or len(set(reader.fieldnames)) < len(reader.fieldnames):
        raise Invalid(f"{path.name}: the first line must name the columns, each once.")
    try:
        for row in reader:
            yield {name: value for name, value in row.items() if name is not None}
    except csv.Error as error:
        raise Invalid(f"{path.name} line {reader.line_num}: {error}.") from error


def _json_rows(text: str, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise Invalid(f"{path.name} line {number} is not JSON.") from None
        if not isinstance(row, dict):
            raise Invalid(f"{path.name} line {number} is not a JSON object.")
        yield row


def _by_column(rows: Iterator[dict[str, Any]], limit: int, encoding: str | None) -> Table:
    columns: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        if number == limit:
            return Table(columns, whole=False, encoding=encoding)
        for name in row:
            columns.setdefault(name, [""] * number)
        for name, cells in columns.items():
            cells.append(_cell(row.get(name)))
    return Table(columns, whole=True, encoding=encoding)


def _parquet(path: Path, limit: int) -> Table:
    try:
        # Heavy, and of use for this one format only.
        import pyarrow.parquet
    except ImportError:
        raise LuthierError(f"{path.name} needs the package pyarrow: pip install pyarrow, or give a .csv.") from None
    file = pyarrow.parquet.ParquetFile(path)
    rows: Iterator[dict[str, Any]] = (row for batch in file.iter_batches(4096) for row in batch.to_pylist())
    return _by_column(rows, limit, None)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
