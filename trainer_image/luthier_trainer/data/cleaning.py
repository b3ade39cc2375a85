"""Makes examples of rows: normalizes texts as spec.dataset.preprocessing says, and reads labels as the task says.

Pure, one row at a time. Sits between `readers` and `staging`; what needs more than one row, such as duplicates, comes
later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from luthier_api.text import normalize_text
from luthier_api.training import DataFile, Preprocessing
from luthier_artifacts.readers.formats import SourceFile
from luthier_artifacts.readers.rows import Row, Text
from luthier_trainer.data.indicators import column_flags, labels_of, vector_flags
from luthier_trainer.runtime.errors import InvalidData
from luthier_trainer.tasks.interface import ParsedLabel, TaskModule
from luthier_trainer.tasks.label_parsing import words_listed

PHRASE_CHARACTERS = 300


class Example(NamedTuple):
    """A text, or words, with its label; `number` says where in the file it stands."""

    text: Text
    pair: str | None
    label: ParsedLabel
    number: int


@dataclass(frozen=True)
class Cleaner:
    """How the rows of one input become examples.

    Attributes:
        task: reads the labels.
        file: names the columns.
        preprocessing: what is done to the texts.
        label_map: other names of labels.
        indicators: names of the numbers, where labels are vectors of 0 and 1 or have a column each.
        met: receives the names in label_map that the data has.
    """

    task: TaskModule
    file: DataFile
    preprocessing: Preprocessing
    label_map: Mapping[str, str]
    indicators: Sequence[str] | None = None
    met: set[str] = field(default_factory=set)

    def clean(self, row: Row, source: SourceFile) -> Example | None:
        """Return the example of a row, or none where text, second text or label is missing.

        Raises:
            InvalidData: if the label is none of the task's, or something is missing and dropMissing is false.
        """
        text: Text = self._words(row.text) if self.task.per_token else self._normalized(row.text)
        pair = self._normalized(row.pair) if self.file.text_pair_column is not None else None
        label = self._label(row, source)
        if not _is_there(text) or (pair is not None and not _is_there(pair)) or label is None:
            if not self.preprocessing.drop_missing:
                what = "text" if not _is_there(text) else "label" if label is None else "second text"
                raise InvalidData(f"{source.place(row.number)} has no {what}, and preprocessing.dropMissing is false.")
            return None
        if self.task.per_token and isinstance(label, tuple) and len(label) != len(text):
            raise InvalidData(
                f"{source.place(row.number)} has {len(text)} words and {len(label)} labels; give each word one, and "
                "words that hold white space as a list."
            )
        return Example(text, pair, label, row.number)

    def _normalized(self, text: Text | None) -> str:
        assert not isinstance(text, list)
        rules = self.preprocessing
        return normalize_text(text or "", lowercase=rules.lowercase, strip_whitespace=rules.strip_whitespace)

    def _words(self, text: Text | None) -> list[str]:
        """Return the words of a list, or those that white space separates; an empty one keeps its place."""
        words = text if isinstance(text, list) else words_listed(text or "") or (text or "").split()
        return [self._normalized(word) for word in words]

    def _label(self, row: Row, source: SourceFile) -> ParsedLabel | None:
        try:
            label = self._parsed(row.label)
        except ValueError as error:
            column = "" if self.file.label_columns else f", column {self.file.label_column!r}"
            raise InvalidData(f"{source.place(row.number)}{column} holds {_short(str(error))}.") from None
        if label is None or not self.label_map:
            return label
        if len(self.met) < len(self.label_map):
            self.met.update(self.label_map.keys() & self.task.label_names(label))
        return self.task.renamed(label, self.label_map)

    def _parsed(self, cell: object) -> ParsedLabel | None:
        if self.indicators is None:
            return self.task.parse(cell, self.file)
        if self.file.label_columns:
            assert isinstance(cell, list)
            flags = column_flags(cell, self.file.label_columns)
        else:
            flags = vector_flags(cell, self.file, len(self.indicators))
        return None if flags is None else labels_of(flags, self.indicators)


def _is_there(text: Text) -> bool:
    """Tell whether there is anything but white space."""
    return any(map(str.strip, text)) if isinstance(text, list) else bool(text.strip())


def _short(phrase: str) -> str:
    return phrase if len(phrase) <= PHRASE_CHARACTERS else phrase[:PHRASE_CHARACTERS] + "…"
