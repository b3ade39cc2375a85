"""Reads labelled rows from CSV, TSV, JSONL and Parquet files, plain or gzipped, one after the other.

Owns the file formats and all that can be wrong with a file; each fault is one sentence with file, line and column.
Decides nothing about the rows: empty cells come out as None, labels as the file has them, and both are the next step's
(`cleaning`). Holds one row, or of Parquet one batch, at a time.

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
from luthier_trainer.runtime.errors import InvalidData, InvalidSpec

# Far above any text that a model reads and far below what hurts; beyond it a quote was opened and never closed.
MAX_CELL_BYTES = 10 * 1024 * 1024
COLUMNS_SHOWN = 20
# Keys of JSON objects that are remembered, to name them when a column is missing.
MAX_KEYS = 1000
PARQUET_ROWS = 4096

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

Text = str | list[str]


class Row(NamedTuple):
    """One row as the file has it.

    Attributes:
        text: a list only where words are asked for.
        pair: the second text.
        label: text in CSV, any value in the others.
        number: a line for text formats and a row for Parquet, from 1.
    """

    text: Text | None
    pair: str | None
    label: object
    number: int


@dataclass(frozen=True)
class SourceFile:
    """A file of rows: `name` says its format and is what people are told."""

    path: Path
    name: str

    def place(self, number: int) -> str:
        """Name a row for people."""
        return f"{self.name}, {_format(self.name)[1]} {number}"


def is_known(name: str) -> bool:
    """Tell by its name whether a file can be read."""
    return _bare(name).endswith(tuple(_FORMATS))


def format_of(name: str) -> str:
    """Return what decides how a file's bytes are read, such as ".csv".

    Raises:
        InvalidSpec: if its name says no format.
    """
    for ending in _FORMATS:
        if _bare(name).endswith(ending):
            return ending
    raise InvalidSpec(
        f"The format of {name} is not known: name it .csv, .tsv, .jsonl or .parquet, with .gz or without."
    )


def read_rows(source: SourceFile, file: DataFile, *, words: bool = False) -> Iterator[Row]:
    """Read the columns that the spec names.

    Args:
        source: the local copy.
        file: names of the columns.
        words: a text may be a list of words.

    Raises:
        InvalidData: if the file is not what its name says, or lacks a column.
        InvalidSpec: if its name says no format.
    """
    name = source.name
    read, _ = _format(name)
    # Of JSON lines no bytes are no rows, which a shard may have; the others have a header.
    if source.path.stat().st_size == 0 and read is not _read_jsonl:
        raise InvalidData(f"{name} is empty (0 bytes).")
    try:
        with _opened(source.path, name) as opened:
            yield from read(opened, name, _Columns(file, words))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidData(f"{name} cannot be unpacked ({error}): it is not gzip, or it is cut short.") from None


class _Columns:
    """The columns that are wanted, and what may stand in them."""

    def __init__(self, file: DataFile, words: bool) -> None:
        self.text, self.pair, self.label = file.text_column, file.text_pair_column, file.label_column
        self.names = [name for name in (self.text, self.pair, self.label) if name is not None]
        self._words = words

    def row(self, text: object, pair: object, label: object, name: str, unit: str, number: int) -> Row:
        """Check the cells of one row of a format that has types."""
        return Row(
            self._list(text, name, unit, number)
            if self._words and isinstance(text, list)
            else _text(text, name, unit, number, self.text),
            _text(pair, name, unit, number, self.pair),
            _label(label, name, unit, number, self.label),
            number,
        )

    def _list(self, words: list[object], name: str, unit: str, number: int) -> list[str]:
        return [_text(word, name, unit, number, self.text) or "" for word in words]


_Reader = Callable[[IO[bytes], str, _Columns], Iterator[Row]]


def _bare(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _format(name: str) -> tuple[_Reader, str]:
    return _FORMATS[format_of(name)]


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


def _read_separated(source: IO[bytes], name: str, columns: _Columns, separator: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_BYTES)
    reader = csv.reader(_lines(source, name), delimiter=separator, strict=True)
    header: list[str] | None = None
    text = pair = label = 0
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
            text, label, pair = _positions(header, name, columns, separator)
            continue
        if len(cells) != len(header):
            raise InvalidData(
                f"{name}, line {start} has {len(cells)} cells and the header has {len(header)}: put quotes around a "
                "text that holds the separator, and close every quote."
            )
        yield Row(cells[text] or None, cells[pair] or None if pair >= 0 else None, cells[label] or None, start)
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


def _positions(header: list[str], name: str, columns: _Columns, separator: str) -> tuple[int, int, int]:
    """Return where text, label and second text stand; -1 for a second text that is not asked for."""
    for column in columns.names:
        if header.count(column) > 1:
            raise InvalidData(f"{name} has {header.count(column)} columns named {column!r}; rename all but one.")
        if column not in header:
            raise InvalidData(_missing_column(column, header, name, separator))
    pair = header.index(columns.pair) if columns.pair is not None else -1
    return header.index(columns.text), header.index(columns.label), pair


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


def _read_jsonl(source: IO[bytes], name: str, columns: _Columns) -> Iterator[Row]:
    seen: dict[str, None] = {}
    absent = set(columns.names)
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
        if absent and len(seen) < MAX_KEYS:
            seen |= dict.fromkeys(value)
        absent -= value.keys()
        pair = value.get(columns.pair) if columns.pair is not None else None
        yield columns.row(value.get(columns.text), pair, value.get(columns.label), name, "line", number)
    for column in columns.names:
        if seen and column in absent:
            raise InvalidData(_missing_column(column, list(seen), name))


def _read_parquet(source: IO[bytes], name: str, columns: _Columns) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(source)
        names = table.schema_arrow.names
        for column in columns.names:
            if column not in names:
                raise InvalidData(_missing_column(column, names, name))
        number = 0
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=columns.names):
            cells = batch.to_pydict()
            pairs = cells[columns.pair] if columns.pair is not None else [None] * batch.num_rows
            for text, pair, label in zip(cells[columns.text], pairs, cells[columns.label], strict=True):
                number += 1
                yield columns.row(text, pair, label, name, "row", number)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidData(f"{name} is not a Parquet file, or is cut short ({reason}).") from None
    except UnicodeDecodeError:
        raise InvalidData(f"{name} holds text that is not UTF-8; write it again with a string column.") from None


def _text(value: object, name: str, unit: str, number: int, column: str | None) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidData(f"{_where(name, unit, number, column)} holds {_shown(value)}, which is not text.")
    return _checked(value, name, unit, number, column)


def _label(value: object, name: str, unit: str, number: int, column: str) -> object:
    """Return the label unchanged; what it may be is for the task to say, but text in it must be text."""
    for each in value if isinstance(value, list) else (value,):
        if isinstance(each, str):
            _checked(each, name, unit, number, column)
    return value


def _checked(value: str, name: str, unit: str, number: int, column: str | None) -> str:
    fault = None
    if len(value) > MAX_CELL_BYTES:
        fault = f"holds a cell of more than {_megabytes(MAX_CELL_BYTES)}."
    elif "\0" in value:
        fault = "holds a NUL character; it was damaged on its way."
    elif not _is_unicode(value):
        fault = "holds half of a surrogate pair, which is no character."
    if fault:
        raise InvalidData(f"{_where(name, unit, number, column)} {fault}")
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _where(name: str, unit: str, number: int, column: str | None) -> str:
    return f"{name}, {unit} {number}, column {column!r}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes // (1024 * 1024)} MB"


_FORMATS: dict[str, tuple[_Reader, str]] = {
    ".csv": (lambda source, name, columns: _read_separated(source, name, columns, ","), "line"),
    ".tsv": (lambda source, name, columns: _read_separated(source, name, columns, "\t"), "line"),
    ".jsonl": (_read_jsonl, "line"),
    ".ndjson": (_read_jsonl, "line"),
    ".parquet": (_read_parquet, "row"),
}
