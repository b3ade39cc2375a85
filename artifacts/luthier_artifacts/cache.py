"""A content-addressed cache of verified files that any number of processes of a node may share.

    <cache>/sha256/<digest>       whole and verified; read-only
    <cache>/manifests/<identity>  manifest of a version, by its URI and digest
    <cache>/signatures/<identity> its signature, likewise; verified again each time
    <cache>/sources/<identity>    digest of an object that has no manifest, by its URI, etag and size
    <cache>/partial/...           arriving; see `parts`
    <cache>/locks/...             held (flock) while one process downloads a file; others wait, then find it

Nothing lies under its digest before its size and sha256 are right. A file that is found there is hashed again,
because disks and people change bytes. Nothing is evicted: give the cache a volume of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from luthier_artifacts.errors import IntegrityError, PreconditionFailed
from luthier_artifacts.hashing import sha256_of, verify_file
from luthier_artifacts.manifest import FileEntry, Manifest
from luthier_artifacts.parts import PartialFile
from luthier_artifacts.store import ObjectInfo, ObjectStore


@dataclass(frozen=True)
class NodeCache:
    """The cache in one folder."""

    folder: Path

    def path(self, digest: str) -> Path:
        """Where the file of this sha256 lies, if it is there."""
        return self.folder / "sha256" / digest

    def manifest(self, uri: str, digest: str) -> Manifest | None:
        """Return the manifest of the version with this digest, if it was kept here."""
        path = self._manifest_path(uri, digest)
        try:
            found = Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:  # disks and people change bytes: storage has another
            return None
        return found if found.digest == digest else None

    def keep_manifest(self, uri: str, manifest: Manifest) -> None:
        """Keep the manifest of a version, so that what lies here suffices to open it again without storage."""
        _write_whole(self._manifest_path(uri, manifest.digest), manifest.model_dump_json(by_alias=True).encode())

    def signature(self, uri: str, digest: str) -> bytes | None:
        """Return the signature of the version with this digest, if it was kept here."""
        path = self._signature_path(uri, digest)
        return path.read_bytes() if path.exists() else None

    def keep_signature(self, uri: str, digest: str, signature: bytes) -> None:
        """Keep the signature of a version beside its manifest."""
        _write_whole(self._signature_path(uri, digest), signature)

    def _signature_path(self, uri: str, digest: str) -> Path:
        return self.folder / "signatures" / _identity(uri, digest)

    def _manifest_path(self, uri: str, digest: str) -> Path:
        return self.folder / "manifests" / _identity(uri, digest)

    def fetch(self, store: ObjectStore, key: str, entry: FileEntry, pool: ThreadPoolExecutor) -> Path:
        """Return a file that a manifest names, downloading what is missing of it.

        Raises:
            IntegrityError: if the object is not what the entry says.
        """
        with self._locked(entry.sha256):
            final = self.path(entry.sha256)
            if not _is_intact(final, entry):
                partial = PartialFile(self.folder / "partial" / entry.sha256, store, key, entry.size)
                _fetch_verified(partial, entry, pool)
                self._keep(partial, final)
            return final

    def fetch_source(self, store: ObjectStore, info: ObjectInfo, path: str, pool: ThreadPoolExecutor) -> FileEntry:
        """Bring an object that no manifest names into the cache, and return what it is; `path` becomes its name.

        Raises:
            IntegrityError: if the object changes after it was listed.
        """
        identity = _identity(store.uri, info.key, info.etag, info.size)
        with self._locked(identity):
            source = self.folder / "sources" / identity
            if source.exists():
                entry = FileEntry(path=path, size=info.size, sha256=source.read_text())
                if _is_intact(self.path(entry.sha256), entry):
                    return entry
            partial = PartialFile(self.folder / "partial" / identity, store, info.key, info.size, info.etag)
            try:
                partial.fetch(pool)
            except PreconditionFailed:
                partial.discard()
                raise IntegrityError(f"{store.uri}/{info.key} changed while it was read; start again.") from None
            entry = FileEntry(path=path, size=info.size, sha256=sha256_of(partial.path))
            self._keep(partial, self.path(entry.sha256))
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(entry.sha256)
            return entry

    def _keep(self, partial: PartialFile, final: Path) -> None:
        partial.path.chmod(0o444)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial.path.replace(final)
        partial.discard()

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        lock = self.folder / "locks" / name
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write_whole(path: Path, data: bytes) -> None:
    """Write a small file that others find whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def _identity(*facts: str | int) -> str:
    """Return a name for what these facts name."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _fetch_verified(partial: PartialFile, entry: FileEntry, pool: ThreadPoolExecutor) -> None:
    """Download and check; when parts of an earlier attempt do not fit, the file is downloaded once more as a whole."""
    resumed = partial.arrived()
    partial.fetch(pool)
    try:
        verify_file(partial.path, entry)
    except IntegrityError as error:
        partial.discard()
        if not resumed:
            raise IntegrityError(f"{partial.store.uri}/{partial.key}: {error} Upload it again.") from None
        _fetch_verified(partial, entry, pool)


def _is_intact(path: Path, entry: FileEntry) -> bool:
    if not path.exists():
        return False
    try:
        verify_file(path, entry)
    except IntegrityError:
        path.unlink()
        return False
    return True
