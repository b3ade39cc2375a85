"""One row of a dataset's file, and the checks of single cells that all formats share."""

from typing import NamedTuple

from luthier_api.training import DataFile
from luthier_trainer.runtime.errors import InvalidData

# Far above any text that a model reads and far below what hurts; beyond it a quote was opened and never closed.
MAX_CELL_BYTES = 10 * 1024 * 1024
COLUMNS_SHOWN = 20

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


class Columns:
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


def missing_column(column: str, columns: list[str], name: str, separator: str | None = None) -> str:
    """Return the sentence for a column that a file lacks, with the columns that it has."""
    shown = ", ".join(repr(each[:60]) for each in columns[:COLUMNS_SHOWN])
    more = f" and {len(columns) - COLUMNS_SHOWN} more" if len(columns) > COLUMNS_SHOWN else ""
    hint = ""
    other = next((mark for mark in (";", "\t", "|", ",") if mark != separator and mark in columns[0]), None)
    if separator and len(columns) == 1 and other:
        hint = f" It seems to be separated by {separator_name(other)}, not by {separator_name(separator)}."
    return f"{name} has no column {column!r}; it has {shown}{more}.{hint}"


def separator_name(mark: str) -> str:
    """Return a separator for a sentence."""
    return "tab" if mark == "\t" else repr(mark)


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
        fault = f"holds a cell of more than {megabytes(MAX_CELL_BYTES)}."
    elif "\0" in value:
        fault = "holds a NUL character; it was damaged in transfer."
    elif not _is_unicode(value):
        fault = "holds half of a surrogate pair, which is not a character."
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


def megabytes(size_bytes: int) -> str:
    """Return a size for a sentence."""
    return f"{size_bytes // (1024 * 1024)} MB"
