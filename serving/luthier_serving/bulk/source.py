"""The input: which files there are, what identifies them, and their rows one after the other.

Read by the readers of the trainer, so that a file means the same here and there. A row that cannot be read becomes a
row with an error, in its place. One file at a time lies on the disk.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from luthier_api.base import Count, Document
from luthier_api.documents import BulkDocument
from luthier_api.training import DataFile
from luthier_artifacts import (
    IntegrityError,
    ObjectInfo,
    ObjectNotFound,
    PreconditionFailed,
    StorageConfig,
    fetch_listed,
    list_files,
)
from luthier_artifacts.readers.formats import SourceFile, is_known, read_rows
from luthier_artifacts.readers.rows import Reading
from luthier_serving.bulk.errors import InputChanged


class InputRow(NamedTuple):
    """A row as the file has it; `error` says why it could not be read, if it could not."""

    text: str | None
    pair: str | None = None
    id: object = None
    error: str | None = None


class InputFile(Document):
    """What identifies a file: another content has another etag."""

    name: str
    size_bytes: Count
    etag: str


class Source:
    """The files of the input, as they are now.

    Args:
        document: names the files and columns.
        config: how storage is reached.
        work: a folder for the file that is being read.

    Raises:
        ObjectNotFound: there are none.
    """

    def __init__(self, document: BulkDocument, config: StorageConfig, work: Path):
        self._store, self._infos = list_files(document.input_uri, config, wanted=is_known)
        self._work, self._with_id = work, document.id_column is not None
        # The id stands where a label would; without one, the text is read in its place and left out.
        text = (document.text_columns or [document.text_column])[0]
        self._columns = DataFile(
            uri=document.input_uri,
            text_column=document.text_column,
            text_columns=document.text_columns,
            text_pair_column=document.text_pair_column,
            label_column=document.id_column or text,
            format=document.format,
        )

    @property
    def files(self) -> list[InputFile]:
        """The files, in the order of their rows."""
        return [InputFile(name=info.key, size_bytes=info.size, etag=info.etag) for info in self._infos]

    def counts(self) -> list[int]:
        """Return how many rows each file has, which reads them all: what is wrong with one is found here.

        Raises:
            InvalidData, InvalidSpec: a file cannot be read as what it is called, or lacks a column.
            InputChanged: a file is no longer the one that was listed.
        """
        return [sum(1 for _ in self._rows_of(info)) for info in self._infos]

    def rows(self, counts: Sequence[int], first: int) -> Iterator[InputRow]:
        """Yield the rows from the one with this number on; files that come before it are not even fetched.

        Args:
            counts: rows of each file.
            first: number of the row to begin with, from 0 over all files.
        """
        before = 0
        for info, count in zip(self._infos, counts, strict=True):
            if before + count > first:
                for number, row in enumerate(self._rows_of(info), before):
                    if number >= first:
                        yield row
            before += count

    def _rows_of(self, info: ObjectInfo) -> Iterator[InputRow]:
        path = self._work / "input"
        for left in (path, path.with_name("input.parts")):
            left.unlink(missing_ok=True)
        try:
            fetch_listed(self._store, info, path)
        except (PreconditionFailed, IntegrityError, ObjectNotFound) as error:
            raise changed(f"{self._store.uri}/{info.key}") from error
        faults: list[str] = []
        for row in read_rows(SourceFile(path, info.key), self._columns, reading=_Faults(faults.append)):
            yield from _taken(faults)
            text = row.text if isinstance(row.text, str) else None
            yield InputRow(text, row.pair, row.label if self._with_id else None)
        yield from _taken(faults)


def changed(what: str) -> InputChanged:
    """Return the error for a file, or files, of the input that are others by now."""
    return InputChanged(
        f"{what} changed while the run was under way, so its predictions would be of two inputs. Start it again once "
        "the input stays as it is: set the annotation luthier.dev/retry to any new value."
    )


class _Faults(Reading):
    """Hands on each row that cannot be read, where the readers would leave it out or end."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(tolerant=True)
        self._tell = tell

    def fault(self, sentence: str, rows: int = 1) -> None:
        """Take note of a row."""
        self._tell(sentence)


def _taken(faults: list[str]) -> Iterator[InputRow]:
    yield from [InputRow(None, error=sentence) for sentence in faults]
    faults.clear()
