"""Hashing local files and folders, and checking a folder against what it should hold.

Reads local disk only. The other side of `manifest`: that module says what a folder should be, this one what it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from luthier_artifacts.errors import IntegrityError, InvalidUri, ObjectNotFound
from luthier_artifacts.manifest import FileEntry, Manifest
from luthier_artifacts.uri import local_path

# hashlib lets go of the GIL, so files are hashed side by side.
_THREADS = min(8, os.cpu_count() or 1)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_folder(folder: Path) -> list[FileEntry]:
    """Hash every file below a folder, in order of their paths; a link counts as the file that it points to.

    Raises:
        InvalidUri: if a name cannot be stored.
        IntegrityError: if a file changes while it is read.
        ObjectNotFound: if there are no files.
    """
    paths = _relative_paths(folder)
    if not paths:
        raise ObjectNotFound(f"{folder} holds no files; there is nothing to store.")
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda path: _describe(folder, path), paths))


def verify_folder(folder: Path, expected: Manifest | Iterable[FileEntry]) -> None:
    """Check that a folder holds exactly these files with exactly these bytes.

    Raises:
        IntegrityError: naming the first file that is missing, extra, of another size or changed.
    """
    entries = expected.files if isinstance(expected, Manifest) else list(expected)
    found = set(_relative_paths(folder))
    wanted = {entry.path for entry in entries}
    if missing := sorted(wanted - found):
        raise IntegrityError(f"The file {missing[0]} is missing in {folder}; download the folder again.")
    if extra := sorted(found - wanted):
        raise IntegrityError(f"The file {extra[0]} in {folder} is not in the manifest; use a folder of its own.")
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda entry: verify_file(local_path(folder, entry.path), entry), entries))


def verify_file(path: Path, entry: FileEntry) -> None:
    """Check one file's size and sha256.

    Raises:
        IntegrityError: if either differs.
    """
    size = path.stat().st_size
    if size != entry.size:
        raise IntegrityError(f"{entry.path} has {size} bytes instead of {entry.size}; it was cut short or replaced.")
    if sha256_of(path) != entry.sha256:
        raise IntegrityError(f"{entry.path} does not have the sha256 that its manifest promises; its bytes changed.")


def _relative_paths(folder: Path) -> list[str]:
    paths = []
    for parent, _, names in os.walk(folder):
        paths += [(Path(parent) / name).relative_to(folder).as_posix() for name in names]
    return sorted(paths)


def _describe(folder: Path, path: str) -> FileEntry:
    file = folder / path
    before = file.stat()
    digest = sha256_of(file)
    after = file.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise IntegrityError(f"{file} changed while it was read; publish a folder that nothing writes to.")
    try:
        return FileEntry(path=path, size=after.st_size, sha256=digest)
    except ValidationError as error:
        raise InvalidUri(f"{error.errors(include_url=False)[0]['msg'].removeprefix('Value error, ')}") from None
