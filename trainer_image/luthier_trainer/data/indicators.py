"""Recognizes labels that are written as vectors of 0 and 1, one number for each label, and reads them.

A list such as [1.0, 0.0, 0.0] says which labels a text has by their positions, and would else be taken for the labels
"1" and "0". Positions without their names are refused, never learned. Pure but for the first look at the files.
"""

from collections.abc import Iterable, Iterator, Sequence

from luthier_api.training import DataFile
from luthier_artifacts.readers.formats import SourceFile, read_rows
from luthier_artifacts.readers.rows import Reading, Row
from luthier_trainer.runtime.errors import InvalidData
from luthier_trainer.tasks.label_parsing import label_list, label_text, repeated
from luthier_trainer.tasks.multi_label import DEFAULT_SEPARATOR

_FLAGS = {"0": False, "1": True, "false": False, "true": True}
# A column of such flags has it where the label is not known, as Jigsaw's test set has.
_UNKNOWN = "-1"


def has_indicators(sources: Iterable[SourceFile], file: DataFile) -> bool | None:
    """Tell whether the labels of an input are vectors of 0 and 1; None if they may as well be positions of labels.

    Vectors are as long as each other, and repeat a number or hold booleans or numbers with a point; a set of positions
    does not. Reads no further than needed, which is nearly always the first row.
    """
    length = None
    try:
        for _, row, labels in _vectors(sources, file):
            if len(labels) < 2 or not set(labels) <= set(_FLAGS) or len(labels) != (length or len(labels)):
                return False
            length = len(labels)
            sure = isinstance(row.label, list) and not all(type(each) is int for each in row.label)
            if sure or repeated(labels):
                return True
    except ValueError:
        return False
    return None if length else False


def indicator_names(sources: Iterable[SourceFile], file: DataFile, wanted: Sequence[str] | None) -> Sequence[str]:
    """Return the names of a vector's numbers, which only the spec can have.

    Raises:
        InvalidData: if it has none, or not as many as the first vector.
    """
    source, row, labels = next(_vectors(sources, file))
    if wanted and len(labels) == len(wanted):
        return wanted
    holds = f"{source.place(row.number)}, column {file.label_column!r} holds {row.label!r}, a vector of {len(labels)}"
    if wanted:
        raise InvalidData(
            f"{holds} numbers 0 and 1, and spec.labels names {len(wanted)} labels; name one for each number."
        )
    raise InvalidData(f"{holds} numbers 0 and 1: name these {len(labels)} labels in spec.labels, in their order.")


def _vectors(sources: Iterable[SourceFile], file: DataFile) -> Iterator[tuple[SourceFile, Row, tuple[str, ...]]]:
    """Yield the lists of labels that there are, with their places."""
    for source in sources:
        for row in read_rows(source, file, reading=Reading(tolerant=True)):
            labels = label_list(row.label, file.label_separator or DEFAULT_SEPARATOR)
            if labels is not None:
                yield source, row, labels


def labels_of(flags: Sequence[bool], names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what is set, sorted."""
    return tuple(sorted(name for name, flag in zip(names, flags, strict=True) if flag))


def vector_flags(cell: object, file: DataFile, length: int) -> list[bool] | None:
    """Read one vector; None for an empty cell.

    Raises:
        ValueError: with a phrase that says what the cell holds instead.
    """
    labels = label_list(cell, file.label_separator or DEFAULT_SEPARATOR)
    if labels is None:
        return None
    if len(labels) != length or not set(labels) <= set(_FLAGS):
        raise ValueError(f"{cell!r}, and other rows hold vectors of {length} numbers 0 and 1")
    return [_FLAGS[label] for label in labels]


def column_flags(cells: Sequence[object], columns: Sequence[str]) -> list[bool] | None:
    """Read one row of labelColumns; None if one of them is not known.

    Raises:
        ValueError: with a phrase that says which column holds what instead.
    """
    flags = []
    for cell, column in zip(cells, columns, strict=True):
        text = label_text(cell)
        if text is None or text == _UNKNOWN:
            return None
        if text.lower() not in _FLAGS:
            raise ValueError(f"{cell!r} in {column!r}; labelColumns hold 0 and 1")
        flags.append(_FLAGS[text.lower()])
    return flags
