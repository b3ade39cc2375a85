"""The store over a local folder, so that a run needs no S3: `python -m luthier_trainer run.json` with file:/// URIs.

Gives what S3 gives. A write goes to a hidden file that is synced and then renamed, so that it appears whole or not at
all; writes hold a file lock, so that a condition and its write are one step between processes. Hidden names
(`.luthier-...`) are never listed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from luthier_artifacts.errors import (
    IntegrityError,
    ObjectNotFound,
    PreconditionFailed,
    StorageDenied,
    StorageError,
)
from luthier_artifacts.store import MAX_DOCUMENT_BYTES, Body, ObjectInfo, ObjectStore, Progress
from luthier_artifacts.uri import local_path

HIDDEN = ".luthier-"
READ_BYTES = 1024 * 1024
HASHED_ETAG_BYTES = 64 * 1024


class FileStore(ObjectStore):
    """Files below a folder; see `store.ObjectStore` for what each method promises."""

    def __init__(self, root: Path, concurrency: int = 8, *, uri: str | None = None) -> None:
        self._root = root
        self._concurrency = concurrency
        self._uri = uri or f"file://{root}"

    @property
    @override
    def uri(self) -> str:
        return self._uri

    @property
    @override
    def concurrency(self) -> int:
        return self._concurrency

    @override
    def stat(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with self._mapped(key):
            if not path.is_file():
                raise FileNotFoundError(path)
            return _info(key, path)

    @override
    def read(self, key: str) -> tuple[bytes, str]:
        with self._mapped(key), self._path(key).open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > MAX_DOCUMENT_BYTES:
                raise IntegrityError(f"{self.uri}/{key} is too large for a document of the registry.")
            data = file.read()
            return data, _etag(status, data)

    @override
    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> Body:
        with self._mapped(key):
            reader = self._path(key).open("rb")
            try:
                found = _info(key, Path(f"/proc/self/fd/{reader.fileno()}"))
                if etag is not None and found.etag != etag:
                    raise PreconditionFailed(f"{self.uri}/{key} was written by somebody else first.")
                if start >= found.size:
                    raise IntegrityError(
                        f"{self.uri}/{key} is shorter than the part that was asked for; it was cut short or replaced."
                    )
            except BaseException:
                reader.close()
                raise
        return Body(found.size, self._chunks(key, reader, start, min(length, found.size - start)), reader.close)

    @override
    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        path = self._path(key)
        with self._mapped(key), self._new_file(path) as new:
            new.write_bytes(data)
            _sync(new)
            with self._lock():
                current = _info(key, path).etag if path.is_file() else None
                if (if_absent and current is not None) or (if_match is not None and current != if_match):
                    raise PreconditionFailed(f"{self.uri}/{key} was written by somebody else first.")
                new.replace(path)
                return _info(key, path).etag

    @override
    def upload(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        def one(item: tuple[str, Path]) -> None:
            key, source = item
            target = self._path(key)
            with self._mapped(key), self._new_file(target) as new:
                shutil.copyfile(source, new)
                _sync(new)
                new.replace(target)
            if progress:
                progress(target.stat().st_size)

        with ThreadPoolExecutor(self._concurrency) as pool:
            list(pool.map(one, files.items()))

    @override
    def delete(self, keys: Collection[str]) -> None:
        for key in keys:
            path = self._path(key)
            with self._mapped(key):
                path.unlink(missing_ok=True)
                self._remove_empty_folders(path.parent)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = self._path(prefix) if prefix else self._root
        found = []
        with self._mapped(prefix):
            for parent, _, names in os.walk(folder):
                found += [Path(parent) / name for name in names if not name.startswith(HIDDEN)]
            for path in sorted(found, key=lambda path: path.relative_to(self._root).as_posix()):
                try:
                    yield _info(path.relative_to(self._root).as_posix(), path)
                except FileNotFoundError:
                    # Deleted since the folder was read, as may happen on S3 between two pages.
                    continue

    def _path(self, key: str) -> Path:
        return local_path(self._root, key)

    def _chunks(self, key: str, reader: BinaryIO, start: int, length: int) -> Iterator[bytes]:
        with self._mapped(key):
            reader.seek(start)
            while length > 0:
                data = reader.read(min(READ_BYTES, length))
                if not data:
                    raise IntegrityError(f"{self.uri}/{key} became shorter while it was read; try again.")
                length -= len(data)
                yield data

    @contextmanager
    def _new_file(self, beside: Path) -> Iterator[Path]:
        """Give an empty hidden file in the folder of `beside`; what is left of it is removed."""
        while True:
            beside.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor, name = tempfile.mkstemp(prefix=HIDDEN, dir=beside.parent)
                break
            except FileNotFoundError:
                # Another process deleted the last file there, and the folder with it.
                continue
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the one lock of this root; the kernel frees it when the process dies."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / f"{HIDDEN}lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _remove_empty_folders(self, folder: Path) -> None:
        while folder != self._root and folder.is_relative_to(self._root):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def _mapped(self, key: str) -> Iterator[None]:
        place = f"{self.uri}/{key}".rstrip("/")
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ObjectNotFound(f"{place} does not exist; check the path.") from error
        except PermissionError as error:
            raise StorageDenied(f"This process may not use {place}; correct the permissions of the folder.") from error
        except OSError as error:
            raise StorageError(f"{place} cannot be used: {error.strerror}.") from error


def _info(key: str, path: Path) -> ObjectInfo:
    status = path.stat()
    data = path.read_bytes() if status.st_size <= HASHED_ETAG_BYTES else b""
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(key, status.st_size, _etag(status, data), modified)


def _etag(status: os.stat_result, data: bytes) -> str:
    """Documents are told apart by their bytes, as on S3, and files too large for that by inode, time and size."""
    if status.st_size <= HASHED_ETAG_BYTES:
        return hashlib.sha256(data).hexdigest()[:32]
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
