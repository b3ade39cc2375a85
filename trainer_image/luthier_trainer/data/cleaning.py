"""Makes examples of rows: normalizes texts as spec.dataset.preprocessing says, and reads labels as the task says.

Pure, one row at a time. Sits between `readers` and `staging`; what needs more than one row, such as duplicates, comes
later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from luthier_api.text import normalize_text
from luthier_api.training import DataFile, Preprocessing
from luthier_trainer.data.readers.formats import SourceFile
from luthier_trainer.data.readers.rows import Row, Text
from luthier_trainer.runtime.errors import InvalidData
from luthier_trainer.tasks.interface import ParsedLabel, TaskModule

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
    """

    task: TaskModule
    file: DataFile
    preprocessing: Preprocessing
    label_map: Mapping[str, str]

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
        return [self._normalized(word) for word in (text if isinstance(text, list) else (text or "").split())]

    def _label(self, row: Row, source: SourceFile) -> ParsedLabel | None:
        try:
            label = self.task.parse(row.label, self.file)
        except ValueError as error:
            where = f"{source.place(row.number)}, column {self.file.label_column!r}"
            raise InvalidData(f"{where} holds {_short(str(error))}.") from None
        return self.task.renamed(label, self.label_map) if label is not None and self.label_map else label


def _is_there(text: Text) -> bool:
    """Tell whether there is anything but white space."""
    return any(map(str.strip, text)) if isinstance(text, list) else bool(text.strip())


def _short(phrase: str) -> str:
    return phrase if len(phrase) <= PHRASE_CHARACTERS else phrase[:PHRASE_CHARACTERS] + "…"
