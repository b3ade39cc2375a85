"""Cleans rows as spec.dataset.preprocessing says, and counts what it left out.

Pure. Sits between `readers` and `quality`; tokenization and the split come later.
"""

from dataclasses import dataclass
from typing import NamedTuple

from luthier_api.text import normalize_text
from luthier_api.training import Preprocessing
from luthier_trainer.errors import InvalidData
from luthier_trainer.readers import Row, Table


class Example(NamedTuple):
    """A text with its label; `number` says where in the file it stands."""

    text: str
    label: str
    number: int


@dataclass(frozen=True)
class Cleaned:
    """What is left of a file, and what was found on the way.

    Attributes:
        table: the file.
        examples: what is left, in the file's order.
        missing: rows without text or label.
        duplicates: rows that repeat the text and the label of an earlier one, dropped or not.
        conflicting: texts that stand there with more than one label.
    """

    table: Table
    examples: list[Example]
    missing: int
    duplicates: int
    conflicting: int


def clean(table: Table, preprocessing: Preprocessing) -> Cleaned:
    """Normalize the texts and leave out what is to be left out.

    Raises:
        InvalidData: if a row lacks text or label and dropMissing is false, or if nothing is left.
    """
    examples: list[Example] = []
    labels_of: dict[str, set[str]] = {}
    missing = duplicates = 0
    for row in table.rows:
        example = _normalized(row, preprocessing)
        if example is None:
            if not preprocessing.drop_missing:
                what = "label" if row.text else "text"
                raise InvalidData(f"{table.place(row.number)} has no {what}, and preprocessing.dropMissing is false.")
            missing += 1
            continue
        labels = labels_of.setdefault(example.text, set())
        if example.label in labels:
            duplicates += 1
            if preprocessing.drop_duplicates:
                continue
        labels.add(example.label)
        examples.append(example)
    if not examples:
        raise InvalidData(f"{table.name} holds {len(table.rows)} rows, and not one has both a text and a label.")
    conflicting = sum(len(labels) > 1 for labels in labels_of.values())
    return Cleaned(table, examples, missing, duplicates, conflicting)


def _normalized(row: Row, preprocessing: Preprocessing) -> Example | None:
    """Return the example, or none where text or label is only white space."""
    text = normalize_text(
        row.text or "", lowercase=preprocessing.lowercase, strip_whitespace=preprocessing.strip_whitespace
    )
    label = (row.label or "").strip()
    return Example(text, label, row.number) if text.strip() and label else None
