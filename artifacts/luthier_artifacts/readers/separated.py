"""Reads CSV and TSV by the standard library's csv, which says in which line a fault is. Holds one row at a time."""

import csv
from collections.abc import Iterator
from functools import partial
from typing import IO

from luthier_api.training import DataFormat
from luthier_artifacts.readers.dialect import Dialect, dialect_of, is_doubtful, separator_said
from luthier_artifacts.readers.errors import InvalidData
from luthier_artifacts.readers.rows import (
    MAX_CELL_BYTES,
    Columns,
    Reading,
    Row,
    doubled_column,
    joined,
    megabytes,
    missing_column,
    separator_name,
)
from luthier_artifacts.readers.text_lines import encoding_of, lines

_LABELS_REMEMBERED = 1000


def read_separated(
    source: IO[bytes], name: str, columns: Columns, format_: DataFormat, reading: Reading, *, separator: str
) -> Iterator[Row]:
    """Read the wanted columns of a file whose first line that is not blank names them.

    Args:
        source: the file.
        name: of the file.
        columns: that are wanted.
        format_: what the spec says of the format.
        reading: is told how the file is read, and what cannot be.
        separator: the usual one of such files.
    """
    csv.field_size_limit(MAX_CELL_BYTES)
    encoding = encoding_of(source, format_.encoding)
    dialect = dialect_of(partial(lines, source, name, encoding, Reading(tolerant=True)), format_, columns, separator)
    reading.how[f"{encoding}, {dialect}"] = None
    yield from _Rows(source, name, columns, dialect, encoding, reading)


class _Rows:
    """The rows of one file."""

    def __init__(
        self, source: IO[bytes], name: str, columns: Columns, dialect: Dialect, encoding: str, reading: Reading
    ) -> None:
        self._name, self._columns, self._dialect, self._reading = name, columns, dialect, reading
        self._lines = lines(source, name, encoding, reading)
        self._of_row: list[str] = []
        self._labels: set[str] = set()
        self._doubtful: tuple[int, int, str] | None = None

    def __iter__(self) -> Iterator[Row]:
        reader = self._dialect.reader(self._remembered_lines())
        header: list[str] | None = None
        texts: list[int] = []
        labels: list[int] = []
        pair = -1
        while True:
            start = reader.line_num + 1
            self._of_row.clear()
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                self._reading.take_line_fault()
                sentence = _quoting_fault(str(error), self._name, start, self._dialect)
                self._fault(sentence, header, rows=reader.line_num - start + 1)
                continue
            if fault := self._reading.take_line_fault():
                self._fault(fault, header)
                continue
            if not cells or (header is None and separator_said(self._of_row[0]) is not None):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                texts, labels, pair = self._positions(header)
                continue
            if fault := self._row_fault(cells, header, start, reader.line_num):
                self._fault(fault, header, rows=reader.line_num - start + 1)
                continue
            label: object = cells[labels[0]] or None
            if not self._columns.one_label:
                label = [cells[each] or None for each in labels]
            elif len(self._labels) < _LABELS_REMEMBERED and len(self._of_row) == 1:
                self._labels.add(cells[labels[0]])
            text = (
                cells[texts[0]] or None if len(texts) == 1 else joined([cells[each] for each in texts if cells[each]])
            )
            yield Row(text, cells[pair] or None if pair >= 0 else None, label, start)
        if header is None:
            raise InvalidData(f"{self._name} holds only blank lines.")
        if self._doubtful and self._doubtful[2] in self._labels:
            raise InvalidData(_melted(self._name, *self._doubtful[:2]))

    def _remembered_lines(self) -> Iterator[str]:
        for line in self._lines:
            self._of_row.append(line)
            yield line

    def _fault(self, sentence: str, header: list[str] | None, rows: int = 1) -> None:
        if header is None:
            raise InvalidData(sentence)
        self._reading.fault(sentence, rows)

    def _row_fault(self, cells: list[str], header: list[str], start: int, end: int) -> str | None:
        if len(cells) != len(header):
            advice = "put quotes around a text that holds the separator, and close every quote"
            if not self._dialect.quotes:
                advice = "take the separator out of the text, or set format.quoting: quotes if cells are in quotes"
            return f"{self._name}, line {start} has {len(cells)} cells and the header has {len(header)}: {advice}."
        if end > start and not self._dialect.certain:
            separator = self._dialect.separator
            if is_doubtful(self._of_row, separator, len(header)):
                if separator == "\t":
                    return _melted(self._name, start, end)
                # Whether the first line's last words are a label, is known once all labels are.
                position = header.index(self._columns.labels[0])
                label = self._of_row[0].rstrip("\r\n").split(separator)[position]
                if self._doubtful is None or self._doubtful[2] not in self._labels:
                    self._doubtful = (start, end, label)
        return None

    def _positions(self, header: list[str]) -> tuple[list[int], list[int], int]:
        """Return where texts, labels and second text stand; -1 for a second text that is not asked for."""
        for column in self._columns.names:
            if header.count(column) > 1:
                raise InvalidData(doubled_column(column, header.count(column), self._name))
            if column not in header:
                raise InvalidData(missing_column(column, header, self._name, self._dialect.separator))
        pair = header.index(self._columns.pair) if self._columns.pair is not None else -1
        return (
            [header.index(each) for each in self._columns.texts],
            [header.index(each) for each in self._columns.labels],
            pair,
        )


def _melted(name: str, start: int, end: int) -> str:
    return (
        f"{name}, line {start}: a quote makes one row of the lines {start} to {end}, each of which looks like a row. "
        "Set format.quoting: none if quotes are part of the texts, or quotes if the text does go over these lines."
    )


def _quoting_fault(error: str, name: str, line: int, dialect: Dialect) -> str:
    advice = "" if dialect.certain else " If quotes are part of the texts, set format.quoting: none."
    if "field larger than" in error:
        what = f"holds a cell of more than {megabytes(MAX_CELL_BYTES)}; a quote is probably opened and never closed"
    elif "unexpected end of data" in error:
        what = "opens a quote that is never closed"
    elif "expected after" in error:
        what = (
            f"has text between a closing quote and the next {separator_name(dialect.separator)}; write a quote inside "
            'a quoted cell as ""'
        )
    else:
        what, advice = f"cannot be read: {error}", ""
    return f"{name}, line {line} {what}.{advice}"
