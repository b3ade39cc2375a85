"""What of a batch prediction lies in storage, and how each thing comes to exist once, whoever is killed when.

    <output>/_runs/<run>.json                     what the run's first worker saw of the input
    <output>/predictions-<key>/_plan.json         rows of each file, so that they are counted once
    <output>/predictions-<key>/part-00012.jsonl.gz
    <output>/predictions-<key>/_parts/00012-...   that the part is there; the name has its rows, errors, size and sha256
    <output>/predictions-<key>/_manifest.json     last: all parts; the predictions exist when it does

The key is a hash of all that decides the bytes: the version's digest, the engine, each file's name, size and etag, the
columns, rows of a shard and format. So what lies under a name is always the same, and an interrupted worker, another
run, and another cluster go on with it. Every object is created if absent and never replaced: of two workers that write
the same part one wins, and both go on with what is there. A kill between two writes loses nothing: a part that is not
noted yet is read and noted; and whoever finds all parts noted writes the manifest.

Names that begin with `_` are no data to Spark, Hive and pyarrow, which read the folder as it is.
"""

import hashlib
import logging
import re
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from pydantic import Field

from luthier_api.base import Count, Digest, Document, Sha256, Text
from luthier_api.batchprediction import RUNS_FOLDER
from luthier_artifacts import IntegrityError, ObjectNotFound, ObjectStore, PreconditionFailed
from luthier_artifacts.probe import probe_conditional_writes
from luthier_serving.bulk.part_files import ENDINGS, Format, summary
from luthier_serving.bulk.source import InputFile

_PART = re.compile(r"part-(?P<index>\d+)[.].*")
_NOTE = re.compile(r"(?P<index>\d+)-(?P<rows>\d+)-(?P<errors>\d+)-(?P<size>\d+)-(?P<sha256>[0-9a-f]{64})")

log = logging.getLogger("luthier_serving.bulk")
D = TypeVar("D", bound=Document)


class Begun(Document):
    """What the first worker of a run saw."""

    folder: Text = Field(description="Folder of the predictions.")
    files: list[InputFile] = Field(description="The input.")


class Plan(Document):
    """How many rows there are."""

    files: list[InputFile] = Field(description="The input.")
    counts: list[Count] = Field(description="Rows of each file.")
    shard_rows: Count = Field(description="Rows of each shard but the last.")

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(self.counts)

    @property
    def shards(self) -> int:
        """Shards in all."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> int:
        """Return how many rows a shard has."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)


class Part(Document):
    """A part that is in storage."""

    name: str = Field(description="Name of its file in the folder.")
    first_row: Count = Field(description="Number of its first row, from 0.")
    rows: Count = Field(description="Its rows.")
    errors: Count = Field(description="Those of them that have an error.")
    size_bytes: Count = Field(description="Size of the file.")
    sha256: Sha256 = Field(description="Of the file.")


class Manifest(Document):
    """All that a run has predicted."""

    model_uri: Text = Field(description="Folder of the version.")
    version: Text = Field(description="The version.")
    digest: Digest = Field(description="Its digest.")
    input_uri: Text = Field(description="What was read.")
    files: list[InputFile] = Field(description="Its files as they were.")
    rows: Count = Field(description="Rows of the input, and of all parts together.")
    errors: Count = Field(description="Rows that have an error.")
    parts: list[Part] = Field(description="The parts, in the order of their rows.")
    created_at: Text = Field(description="When this was written.")


class Note(NamedTuple):
    """That a part is in storage, as its name says."""

    rows: int
    errors: int
    size_bytes: int
    sha256: str


class OutputFolder:
    """The folder of one key.

    Args:
        root: the output.
        key: hash of what decides the predictions.
        format_: of the parts.
    """

    def __init__(self, root: ObjectStore, key: str, format_: Format):
        self._root, self._format = root, format_
        self._name = f"predictions-{key[:16]}"

    @property
    def uri(self) -> str:
        """Where the predictions lie."""
        return f"{self._root.uri}/{self._name}/"

    def prove(self) -> None:
        """Check that the output may be written, and that the server keeps its word about writing once.

        Raises:
            StorageError: otherwise.
        """
        probe_conditional_writes(self._root, RUNS_FOLDER)

    def begin(self, run: str, files: list[InputFile]) -> list[InputFile]:
        """Return the input as the run's first worker saw it, which may be this one."""
        return self._agreed(f"{RUNS_FOLDER}/{run}.json", Begun(folder=self.uri, files=files)).files

    def manifest(self) -> Manifest | None:
        """Return the manifest, if all is done."""
        return self._read(self._key("_manifest.json"), Manifest)

    def plan(self) -> Plan | None:
        """Return the plan, if some worker has counted the rows."""
        return self._read(self._key("_plan.json"), Plan)

    def agree(self, plan: Plan) -> Plan:
        """Return the plan that all workers follow: this one, or one that another worker wrote first."""
        return self._agreed(self._key("_plan.json"), plan)

    def notes(self) -> dict[int, Note]:
        """Return {shard: note} of the parts that are noted."""
        found = {}
        for info in self._root.list(self._key("_parts")):
            if match := _NOTE.fullmatch(info.key.rpartition("/")[2]):
                rows, errors, size = (int(match[name]) for name in ("rows", "errors", "size"))
                found[int(match["index"])] = Note(rows, errors, size, match["sha256"])
        return found

    def stored(self) -> set[int]:
        """Return the shards whose parts are in storage, noted or not."""
        names = (info.key.rpartition("/")[2] for info in self._root.list(self._name) if info.key.count("/") == 1)
        return {int(match["index"]) for name in names if (match := _PART.fullmatch(name))}

    def adopt(self, shard: int, rows: int) -> None:
        """Note a part that was written by a worker which then died.

        Raises:
            IntegrityError: what has its name is no such part.
        """
        content = self._content(shard)
        self._note(shard, content, *self._checked(shard, content, rows))

    def store(self, shard: int, content: bytes, rows: int, errors: int) -> None:
        """Store a part, or go on with the one that another worker has stored meanwhile."""
        try:
            self._root.write(self._part_key(shard), content, if_absent=True)
        except PreconditionFailed:
            log.info("shard %d was stored by another worker, or by an answer that got lost", shard)
            content = self._content(shard)
            rows, errors = self._checked(shard, content, rows)
        self._note(shard, content, rows, errors)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest; another worker may have."""
        self._agreed(self._key("_manifest.json"), manifest)

    def parts(self, notes: dict[int, Note], shard_rows: int) -> list[Part]:
        """Return the parts as a manifest lists them."""
        return [
            Part(
                name=self._part_key(shard).rpartition("/")[2],
                first_row=shard * shard_rows,
                rows=note.rows,
                errors=note.errors,
                size_bytes=note.size_bytes,
                sha256=note.sha256,
            )
            for shard, note in sorted(notes.items())
        ]

    def _note(self, shard: int, content: bytes, rows: int, errors: int) -> None:
        name = f"{shard:05}-{rows}-{errors}-{len(content)}-{hashlib.sha256(content).hexdigest()}"
        # Not empty: some servers take an empty object for a folder.
        self._root.write(self._key(f"_parts/{name}"), name.encode())

    def _checked(self, shard: int, content: bytes, rows: int) -> tuple[int, int]:
        try:
            found, errors = summary(content, self._format)
        except (OSError, EOFError, ValueError):  # those of gzip, json and pyarrow
            found, errors = -1, 0
        if found != rows:
            where = f"{self._root.uri}/{self._part_key(shard)}"
            raise IntegrityError(f"{where} is not the part of {rows} rows that has this name; remove the folder.")
        return found, errors

    def _content(self, shard: int) -> bytes:
        key = self._part_key(shard)
        size = self._root.stat(key).size
        with self._root.read_range(key, 0, max(size, 1)) as body:
            return b"".join(body.chunks)

    def _part_key(self, shard: int) -> str:
        return self._key(f"part-{shard:05}.{ENDINGS[self._format]}")

    def _key(self, name: str) -> str:
        return f"{self._name}/{name}"

    def _read(self, key: str, kind: type[D]) -> D | None:
        try:
            content, _ = self._root.read(key)
        except ObjectNotFound:
            return None
        try:
            return kind.from_json(content)
        except ValueError as error:
            raise IntegrityError(f"{self._root.uri}/{key} cannot be read; remove the folder {self.uri}.") from error

    def _agreed(self, key: str, wanted: D) -> D:
        """Write a document unless there is one; return the one that is there."""
        try:
            self._root.write(key, wanted.to_json().encode(), if_absent=True)
            return wanted
        except PreconditionFailed:
            found = self._read(key, type(wanted))
            return wanted if found is None else found


def now() -> str:
    """Return the time for a manifest."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
