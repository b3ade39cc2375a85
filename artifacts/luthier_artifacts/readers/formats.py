"""Picks the reader of a file by its name, and opens the file, gzipped or not."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from luthier_api.training import DataFile, DataFormat
from luthier_artifacts.readers.errors import InvalidData, InvalidSpec
from luthier_artifacts.readers.jsonl import read_jsonl
from luthier_artifacts.readers.parquet import read_parquet
from luthier_artifacts.readers.rows import Columns, Reading, Row
from luthier_artifacts.readers.separated import read_separated

_Reader = Callable[[IO[bytes], str, Columns, DataFormat, Reading], Iterator[Row]]


@dataclass(frozen=True)
class SourceFile:
    """A file of rows: `name` determines its format and stands in messages."""

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


def read_rows(
    source: SourceFile,
    file: DataFile,
    *,
    words: bool = False,
    known_labels: frozenset[str] = frozenset(),
    reading: Reading | None = None,
) -> Iterator[Row]:
    """Read the columns that the spec names.

    Args:
        source: the local copy.
        file: names of the columns, and the format.
        words: a text may be a list of words.
        known_labels: what the spec calls the labels in the file.
        reading: is told how the file is read, and of rows that cannot be.

    Raises:
        InvalidData: if the file is not what its name says, lacks a column, or has a row that cannot be read and is not
            tolerated.
        InvalidSpec: if its name says no format, or the spec one that does not fit.
    """
    name = source.name
    read, _ = _format(name)
    # Of JSON lines no bytes are no rows, which a shard may have; the others have a header.
    if source.path.stat().st_size == 0 and read is not read_jsonl:
        raise InvalidData(f"{name} is empty (0 bytes).")
    try:
        with _opened(source.path, name) as opened:
            yield from read(opened, name, Columns(file, words, known_labels), file.format, reading or Reading())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidData(f"{name} cannot be unpacked ({error}): it is not gzip, or it is cut short.") from None


def _bare(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _format(name: str) -> tuple[_Reader, str]:
    return _FORMATS[format_of(name)]


def _opened(path: Path, name: str) -> IO[bytes]:
    return gzip.open(path) if name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


_FORMATS: dict[str, tuple[_Reader, str]] = {
    ".csv": (partial(read_separated, separator=","), "line"),
    ".tsv": (partial(read_separated, separator="\t"), "line"),
    ".jsonl": (read_jsonl, "line"),
    ".ndjson": (read_jsonl, "line"),
    ".parquet": (read_parquet, "row"),
}
