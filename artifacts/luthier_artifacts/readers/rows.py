"""One row of a dataset's file, and the checks of single cells that all formats share."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from luthier_api.training import DataFile
from luthier_artifacts.readers.errors import InvalidData

# Far above any text that a model reads and far below what hurts; beyond it a quote was opened and never closed.
MAX_CELL_BYTES = 10 * 1024 * 1024
COLUMNS_SHOWN = 20
FAULTS_SHOWN = 10

Text = str | list[str]


class Row(NamedTuple):
    """One row as the file has it.

    Attributes:
        text: a list only where words are asked for.
        pair: the second text.
        label: text in CSV, any value in the others; a list of cells where labels have a column each.
        number: a line for text formats and a row for Parquet, from 1.
    """

    text: Text | None
    pair: str | None
    label: object
    number: int


class Reading:
    """What is found out while the files of an input are read.

    Attributes:
        malformed: rows that could not be read, and were left out.
        faults: what is wrong with the first of them.
        how: by which formats the files were read, for people.
    """

    def __init__(self, *, tolerant: bool = False) -> None:
        self.malformed = 0
        self.faults: list[str] = []
        self.how: dict[str, None] = {}
        self.tolerant = tolerant
        self._line_fault: str | None = None

    def fault(self, sentence: str, rows: int = 1) -> None:
        """Take note of rows that are left out.

        Raises:
            InvalidData: with the sentence, unless such rows are tolerated.
        """
        if not self.tolerant:
            raise InvalidData(sentence)
        self.malformed += rows
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(sentence)

    def line_fault(self, sentence: str) -> None:
        """Take note of a line that is not text; the row that it belongs to will be left out.

        Raises:
            InvalidData: with the sentence, unless such rows are tolerated.
        """
        if not self.tolerant:
            raise InvalidData(sentence)
        self._line_fault = self._line_fault or sentence

    def take_line_fault(self) -> str | None:
        """Return what was wrong with the lines since the last call."""
        taken, self._line_fault = self._line_fault, None
        return taken


class Columns:
    """The columns that are wanted, and what may stand in them.

    Args:
        file: names them.
        words: a text may be a list of words.
        known_labels: what the spec calls the labels in the file; decides whether names in a file are used.
    """

    def __init__(self, file: DataFile, words: bool, known_labels: frozenset[str] = frozenset()) -> None:
        self.texts = file.text_columns or [file.text_column]
        self.pair = file.text_pair_column
        self.labels = file.label_columns or [file.label_column]
        # Several are read as a list, also where there is only one.
        self.one_label = file.label_columns is None
        self.names = list(dict.fromkeys([*self.texts, *([self.pair] if self.pair else []), *self.labels]))
        self.known_labels = known_labels
        self._words = words

    def row(self, cell: Callable[[str], object], name: str, unit: str, number: int) -> Row:
        """Check the cells of one row, each given by its column's name."""
        texts = [self._checked_text(cell(column), name, unit, number, column) for column in self.texts]
        labels = [_label(cell(column), name, unit, number, column) for column in self.labels]
        return Row(
            texts[0] if len(texts) == 1 else joined(texts),
            _text(cell(self.pair), name, unit, number, self.pair) if self.pair else None,
            labels[0] if self.one_label else labels,
            number,
        )

    def _checked_text(self, value: object, name: str, unit: str, number: int, column: str) -> Text | None:
        if self._words and isinstance(value, list):
            return [_text(word, name, unit, number, column) or "" for word in value]
        return _text(value, name, unit, number, column)


def joined(texts: Sequence[Text | None]) -> str | None:
    """Return several texts as one; none if all are missing."""
    return " ".join(text for text in texts if isinstance(text, str)) or None


def doubled_column(column: str, count: int, name: str) -> str:
    """Return the sentence for a column that a file has more than once."""
    return f"{name} has {count} columns named {column!r}; rename all but one."


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
    # A missing text is NaN where a column was made by pandas.
    if value is None or value == "" or value != value:
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
