"""Reads labelled rows from CSV, TSV, JSONL and Parquet files, plain or gzipped.

Owns the file formats and all that can be wrong with a file; each fault is one sentence with file, line and column.
Decides nothing about the rows: empty cells come out as None and are the next step's (`cleaning`).

CSV and JSONL are read by the standard library, because it says in which line a fault is; Parquet by pyarrow.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from luthier_api.training import DataFile
from luthier_trainer.errors import InvalidData, InvalidSpec

# Far above any text that a model reads and far below what hurts; beyond it a quote was opened and never closed.
MAX_CELL_BYTES = 10 * 1024 * 1024
COLUMNS_SHOWN = 20

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Row(NamedTuple):
    """One row as the file has it; `number` is a line for text formats and a row for Parquet, from 1."""

    text: str | None
    label: str | None
    number: int


@dataclass(frozen=True)
class Table:
    """All rows of a file, and how to speak of them."""

    name: str
    unit: str
    rows: list[Row]

    def place(self, number: int) -> str:
        """Name a row for people."""
        return f"{self.name}, {self.unit} {number}"


def read_table(path: Path, file: DataFile) -> Table:
    """Read the two columns of a file.

    Args:
        path: the local copy.
        file: its URI, which says the format and is shown in messages, and the names of the columns.

    Raises:
        InvalidData: if the file is not what its name says, lacks a column or holds no rows.
        InvalidSpec: if its name says no format.
    """
    name = file.uri.rsplit("/", 1)[-1]
    read, unit = _format(name)
    if path.stat().st_size == 0:
        raise InvalidData(f"{name} is empty (0 bytes).")
    try:
        with _opened(path, name) as source:
            rows = list(read(source, name, file))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidData(f"{name} cannot be unpacked ({error}): it is not gzip, or it is cut short.") from None
    if not rows:
        raise InvalidData(f"{name} holds no rows.")
    return Table(name, unit, rows)


_Reader = Callable[[IO[bytes], str, DataFile], Iterator[Row]]


def _format(name: str) -> tuple[_Reader, str]:
    bare = name.lower().removesuffix(".gz")
    if bare.endswith(".csv"):
        return lambda source, name, file: _read_separated(source, name, file, ","), "line"
    if bare.endswith(".tsv"):
        return lambda source, name, file: _read_separated(source, name, file, "\t"), "line"
    if bare.endswith((".jsonl", ".ndjson")):
        return _read_jsonl, "line"
    if bare.endswith(".parquet"):
        return _read_parquet, "row"
    raise InvalidSpec(
        f"The format of {name} is not known: name it .csv, .tsv, .jsonl or .parquet, with .gz or without."
    )


def _opened(path: Path, name: str) -> IO[bytes]:
    return gzip.open(path) if name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(source: IO[bytes], name: str) -> Iterator[str]:
    """Yield decoded lines with their ends, and say where a byte is that cannot be text."""
    number = 0
    while raw := source.readline(MAX_CELL_BYTES + 1):
        number += 1
        if len(raw) > MAX_CELL_BYTES:
            raise InvalidData(
                f"{name}, line {number} is longer than {_megabytes(MAX_CELL_BYTES)}; shorten the text, or put each "
                "example on a line of its own."
            )
        if number == 1:
            if raw.startswith(_UTF16_MARKS):
                raise InvalidData(f"{name} is UTF-16; save it as UTF-8.")
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        if b"\0" in raw:
            raise InvalidData(
                f"{name}, line {number} holds a NUL byte at position {raw.index(0) + 1}; it is not a text file, or was "
                "damaged on its way."
            )
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidData(
                f"{name}, line {number} is not UTF-8: byte 0x{raw[error.start]:02X} at position {error.start + 1}. If "
                "the file is Latin-1, convert it with `iconv -f latin1 -t utf-8`."
            ) from None


def _read_separated(source: IO[bytes], name: str, file: DataFile, separator: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_BYTES)
    reader = csv.reader(_lines(source, name), delimiter=separator, strict=True)
    header: list[str] | None = None
    wanted: tuple[int, int] = (0, 0)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InvalidData(_quoting_fault(str(error), name, start, separator)) from None
        if not cells:
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            wanted = _positions(header, name, file, separator)
            continue
        if len(cells) != len(header):
            raise InvalidData(
                f"{name}, line {start} has {len(cells)} cells and the header has {len(header)}: put quotes around a "
                "text that holds the separator, and close every quote."
            )
        yield Row(cells[wanted[0]] or None, cells[wanted[1]] or None, start)
    if header is None:
        raise InvalidData(f"{name} holds only blank lines.")


def _quoting_fault(error: str, name: str, line: int, separator: str) -> str:
    if "field larger than" in error:
        what = f"holds a cell of more than {_megabytes(MAX_CELL_BYTES)}; a quote is probably opened and never closed"
    elif "unexpected end of data" in error:
        what = "opens a quote that is never closed"
    elif "expected after" in error:
        what = (
            f"has text between a closing quote and the next {_separator(separator)}; write a quote inside a quoted "
            'cell as ""'
        )
    else:
        what = f"cannot be read: {error}"
    return f"{name}, line {line} {what}."


def _positions(header: list[str], name: str, file: DataFile, separator: str) -> tuple[int, int]:
    for column in (file.text_column, file.label_column):
        if header.count(column) > 1:
            raise InvalidData(f"{name} has {header.count(column)} columns named {column!r}; rename all but one.")
        if column not in header:
            raise InvalidData(_missing_column(column, header, name, separator))
    return header.index(file.text_column), header.index(file.label_column)


def _missing_column(column: str, columns: list[str], name: str, separator: str | None = None) -> str:
    shown = ", ".join(repr(each[:60]) for each in columns[:COLUMNS_SHOWN])
    more = f" and {len(columns) - COLUMNS_SHOWN} more" if len(columns) > COLUMNS_SHOWN else ""
    hint = ""
    other = next((mark for mark in (";", "\t", "|", ",") if mark != separator and mark in columns[0]), None)
    if separator and len(columns) == 1 and other:
        hint = f" It seems to be separated by {_separator(other)}, not by {_separator(separator)}."
    return f"{name} has no column {column!r}; it has {shown}{more}.{hint}"


def _separator(mark: str) -> str:
    return "tab" if mark == "\t" else repr(mark)


def _read_jsonl(source: IO[bytes], name: str, file: DataFile) -> Iterator[Row]:
    seen: dict[str, None] = {}
    for number, line in enumerate(_lines(source, name), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
            raise InvalidData(f"{name}, line {number} is not JSON: {reason}.") from None
        if not isinstance(value, dict):
            raise InvalidData(f"{name}, line {number} is not a JSON object with the columns as keys.")
        seen |= dict.fromkeys(value)
        place = f"{name}, line {number}"
        yield Row(
            _text(value.get(file.text_column), place, file), _label(value.get(file.label_column), place, file), number
        )
    for column in (file.text_column, file.label_column):
        if seen and column not in seen:
            raise InvalidData(_missing_column(column, list(seen), name))


def _read_parquet(source: IO[bytes], name: str, file: DataFile) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(source)
        names = table.schema_arrow.names
        for column in (file.text_column, file.label_column):
            if column not in names:
                raise InvalidData(_missing_column(column, names, name))
        number = 0
        for batch in table.iter_batches(columns=[file.text_column, file.label_column]):
            columns = batch.to_pydict()
            for text, label in zip(columns[file.text_column], columns[file.label_column], strict=True):
                number += 1
                place = f"{name}, row {number}"
                yield Row(_text(text, place, file), _label(label, place, file), number)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidData(f"{name} is not a Parquet file, or is cut short ({reason}).") from None
    except UnicodeDecodeError:
        raise InvalidData(f"{name} holds text that is not UTF-8; write it again with a string column.") from None


def _text(value: object, place: str, file: DataFile) -> str | None:
    where = f"{place}, column {file.text_column!r}"
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidData(f"{where} holds {_shown(value)}, which is not text.")
    return _checked(value, where)


def _label(value: object, place: str, file: DataFile) -> str | None:
    """Return the label as text: 1 is "1", true is "true", and 1.0 is "1", as a column with gaps has it."""
    where = f"{place}, column {file.label_column!r}"
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if not isinstance(value, str):
        raise InvalidData(f"{where} holds {_shown(value)}; a label is text, an integer or a boolean.")
    return _checked(value, where)


def _checked(value: str, where: str) -> str:
    if len(value) > MAX_CELL_BYTES:
        raise InvalidData(f"{where} holds a cell of more than {_megabytes(MAX_CELL_BYTES)}.")
    if "\0" in value:
        raise InvalidData(f"{where} holds a NUL character; it was damaged on its way.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidData(f"{where} holds half of a surrogate pair, which is no character.") from None
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes // (1024 * 1024)} MB"
