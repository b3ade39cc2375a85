"""Reads CSV and TSV by the standard library's csv, which says in which line a fault is. Holds one row at a time."""

import csv
from collections.abc import Iterator
from typing import IO

from luthier_trainer.data.readers.rows import MAX_CELL_BYTES, Columns, Row, megabytes, missing_column, separator_name
from luthier_trainer.data.readers.text_lines import lines
from luthier_trainer.runtime.errors import InvalidData


def read_separated(source: IO[bytes], name: str, columns: Columns, separator: str) -> Iterator[Row]:
    """Read the wanted columns of a file whose first line that is not blank names them."""
    csv.field_size_limit(MAX_CELL_BYTES)
    reader = csv.reader(lines(source, name), delimiter=separator, strict=True)
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
        what = f"holds a cell of more than {megabytes(MAX_CELL_BYTES)}; a quote is probably opened and never closed"
    elif "unexpected end of data" in error:
        what = "opens a quote that is never closed"
    elif "expected after" in error:
        what = (
            f"has text between a closing quote and the next {separator_name(separator)}; write a quote inside a quoted "
            'cell as ""'
        )
    else:
        what = f"cannot be read: {error}"
    return f"{name}, line {line} {what}."


def _positions(header: list[str], name: str, columns: Columns, separator: str) -> tuple[int, int, int]:
    """Return where text, label and second text stand; -1 for a second text that is not asked for."""
    for column in columns.names:
        if header.count(column) > 1:
            raise InvalidData(f"{name} has {header.count(column)} columns named {column!r}; rename all but one.")
        if column not in header:
            raise InvalidData(missing_column(column, header, name, separator))
    pair = header.index(columns.pair) if columns.pair is not None else -1
    return header.index(columns.text), header.index(columns.label), pair
