"""What the registry needs from storage: a small interface with two implementations, S3 and a local folder.

A store is rooted at a URI; keys are relative to it, with `/` between segments and none at either end. Both
implementations give the same guarantees: a write appears whole or not at all, `if_absent` and `if_match` are atomic,
and every error is one of `luthier_artifacts.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

# A manifest with 10,000 files is about 2 MB. A bucket may be hostile, so no document is read without a limit.
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ObjectInfo:
    """One object; `etag` changes whenever its content does, and is opaque."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Body:
    """The bytes of a range as they arrive, and the size of the whole object. Close it by leaving its `with` block."""

    total_size: int
    chunks: Iterator[bytes]
    close: Callable[[], None]

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ObjectStore(Protocol):
    """Objects below one URI."""

    @property
    def uri(self) -> str:
        """URI of the root, without a slash at its end."""

    @property
    def concurrency(self) -> int:
        """Requests that are worth having in flight."""

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object. Raises ObjectNotFound."""

    def read(self, key: str) -> tuple[bytes, str]:
        """Return a document of at most MAX_DOCUMENT_BYTES and its etag. Raises ObjectNotFound, IntegrityError."""

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> Body:
        """Return bytes start..start+length, fewer at the end of the object. Raises ObjectNotFound.

        With `etag`, raises PreconditionFailed when the object is no longer that one.
        """

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write a document and return its etag.

        Raises PreconditionFailed when it exists (`if_absent`), or is not there or no longer the one with this etag
        (`if_match`). After a lost answer a write that took effect may report PreconditionFailed too: read to find out.
        """

    def upload(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        """Upload local files, {key: path}, side by side; `progress` is called with bytes, from several threads."""

    def delete(self, keys: Collection[str]) -> None:
        """Delete objects; those that do not exist are deleted already."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List the objects below a folder, in order of their keys."""
