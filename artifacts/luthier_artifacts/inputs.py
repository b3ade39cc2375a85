"""What a run reads: datasets and base models, as files or whole folders, from s3://, pvc:// and file://.

Nothing here has a manifest, so nothing can be verified against one. Instead the identity of what is read is pinned:
by an etag when an input is looked at, so that a change is refused later, and by a digest over the bytes once they are
here. For local files the etag is the sha256, because times and inodes differ between machines.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from luthier_artifacts.config import StorageConfig
from luthier_artifacts.download import fetch_all, link_or_copy, open_cache, place_folder
from luthier_artifacts.errors import IntegrityError, InvalidUri, ObjectNotFound
from luthier_artifacts.hashing import sha256_of, verify_folder
from luthier_artifacts.manifest import FileEntry, tree_digest
from luthier_artifacts.opening import open_location, open_store
from luthier_artifacts.store import ObjectInfo, ObjectStore
from luthier_artifacts.uri import Location, local_path, parse_uri

Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class InputStat:
    """One file as it is now, not downloaded."""

    uri: str
    size: int
    etag: str

    @property
    def digest(self) -> str:
        """Digest, "sha256:<hex>", over size and etag; the place is not in it."""
        return _digest([self.size, self.etag])


@dataclass(frozen=True)
class TreeStat:
    """The files of a folder as they are now, not downloaded: {path: (size, etag)}."""

    uri: str
    files: dict[str, tuple[int, str]]

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(size for size, _ in self.files.values())

    @property
    def digest(self) -> str:
        """Digest, "sha256:<hex>", over paths, sizes and etags; the place is not in it."""
        return _digest(sorted([path, size, etag] for path, (size, etag) in self.files.items()))


@dataclass(frozen=True)
class FetchedTree:
    """The files of a folder that was downloaded: {path: entry}."""

    files: dict[str, FileEntry]

    @property
    def digest(self) -> str:
        """Digest, "sha256:<hex>", over paths, sizes and sha256: the same for the same bytes wherever they lie."""
        return tree_digest(self.files.values())


def stat_input(uri: str, config: StorageConfig | None = None) -> InputStat:
    """Describe one file.

    Raises:
        ObjectNotFound: if there is no such file; a folder is none.
        StorageDenied, BucketNotFound, StorageUnavailable, InvalidUri: as their names say.
    """
    location = parse_uri(uri)
    _, info = _find(location, config)
    return InputStat(location.uri, info.size, info.etag)


def fetch_file(
    uri: str, dest: Path, config: StorageConfig | None = None, *, etag: str | None = None, cache: Path | None = None
) -> FileEntry:
    """Download one file; `dest` is there whole or not at all, and is read-only.

    Args:
        uri: s3://bucket/key or file:///path.
        dest: Path of the local file; one that exists is replaced.
        config: How to reach storage.
        etag: What `stat_input` said.
        cache: Folder of the node's cache.

    Raises:
        IntegrityError: if the file is no longer the one with this etag.
        ObjectNotFound: if there is no such file.
    """
    location = parse_uri(uri)
    store, info = _find(location, config)
    if etag is not None and info.etag != etag:
        raise IntegrityError(f"{location.uri} changed after it was looked at; start a new run to use the new data.")
    if location.folder is not None:
        # The sha256 is not the store's own etag, which is what it compares.
        info = replace(info, etag=store.stat(info.key).etag)
    with open_cache(dest, cache) as node_cache, ThreadPoolExecutor(store.concurrency) as parts:
        entry = node_cache.fetch_source(store, info, info.key, parts)
        fresh = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.partial")
        link_or_copy(node_cache.path(entry.sha256), fresh)
        fresh.replace(dest)
        # A rename between two links to the same file does nothing.
        fresh.unlink(missing_ok=True)
    return entry


def list_prefix(uri: str, config: StorageConfig | None = None) -> list[ObjectInfo]:
    """List the files of a folder and of those in it; keys are relative to the folder, sorted."""
    return list(open_store(uri, config).list())


def stat_tree(uri: str, config: StorageConfig | None = None, *, wanted: Wanted | None = None) -> TreeStat:
    """Describe a folder without downloading it. Hidden files are left out, and those that `wanted` refuses.

    Raises:
        ObjectNotFound: if there are no files.
    """
    location = parse_uri(uri)
    store = open_location(location, config)
    return TreeStat(
        location.uri, {info.key: (info.size, _stable_etag(location, info)) for info in _tree(store, wanted)}
    )


def fetch_tree(
    uri: str,
    dest: Path,
    config: StorageConfig | None = None,
    *,
    cache: Path | None = None,
    wanted: Wanted | None = None,
) -> FetchedTree:
    """Download a folder. Hidden files are left out, and those that `wanted` refuses.

    Args:
        uri: s3://bucket/prefix or file:///folder.
        dest: Folder that will hold the files; see `download.download_files`.
        config: How to reach storage.
        cache: Folder of the node's cache.
        wanted: Says by its relative path whether a file is wanted.

    Raises:
        ObjectNotFound: if there are no files.
        IntegrityError: if a file changes meanwhile, or `dest` holds something else.
    """
    store = open_store(uri, config)
    return _fetch(store, _tree(store, wanted), dest, cache)


def fetch_files(
    uri: str,
    dest: Path,
    config: StorageConfig | None = None,
    *,
    cache: Path | None = None,
    wanted: Wanted | None = None,
) -> FetchedTree:
    """Download the files that a URI names: one, those below a prefix, or those that a pattern matches.

    Args:
        uri: a file; with a trailing / all files below it that are not hidden and that `wanted` does not refuse; with *
            in its last part all files of that folder whose names match, where * stands for any characters.
        dest: Folder that will hold the files by their names in the folder that the URI names.
        config: How to reach storage.
        cache: Folder of the node's cache.
        wanted: Says by its relative path whether a file below a prefix is wanted.

    Returns:
        The files in the order of their names.

    Raises:
        ObjectNotFound: if there are none.
        InvalidUri: if * stands in another part.
        IntegrityError: if a file changes meanwhile, or `dest` holds something else.
    """
    location = parse_uri(uri)
    if "*" in location.path.rpartition("/")[0]:
        raise InvalidUri(f"{uri} has * in the name of a folder; it may stand in the last part only.")
    if uri.endswith("/"):
        store = open_location(location, config)
        infos = _tree(store, wanted)
    else:
        folder, name = location.split()
        store = open_location(folder, config)
        infos = _matching(store, name) if "*" in name else [store.stat(name)]
    if not infos:
        raise ObjectNotFound(f"{uri} names no file that can be used; check the path and the names there.")
    return _fetch(store, infos, dest, cache)


def _matching(store: ObjectStore, pattern: str) -> list[ObjectInfo]:
    """List the files directly in a store's folder whose names match; a hidden one only if the pattern begins so."""
    matches = re.compile("[^/]*".join(re.escape(piece) for piece in pattern.split("*"))).fullmatch
    hidden = pattern.startswith(".")
    return [info for info in store.list() if matches(info.key) and (hidden or not info.key.startswith("."))]


def _fetch(store: ObjectStore, infos: list[ObjectInfo], dest: Path, cache: Path | None) -> FetchedTree:
    with open_cache(dest, cache) as node_cache:

        def fetch(info: ObjectInfo, parts: ThreadPoolExecutor) -> FileEntry:
            return node_cache.fetch_source(store, info, info.key, parts)

        entries = fetch_all(fetch, infos, store.concurrency)
        if dest.exists() and any(dest.iterdir()):
            verify_folder(dest, entries)
        else:
            place_folder(node_cache, entries, dest)
    return FetchedTree({entry.path: entry for entry in sorted(entries, key=lambda entry: entry.path)})


def _find(location: Location, config: StorageConfig | None) -> tuple[ObjectStore, ObjectInfo]:
    folder, name = location.split()
    store = open_location(folder, config)
    info = store.stat(name)
    return store, replace(info, etag=_stable_etag(folder, info))


def _stable_etag(location: Location, info: ObjectInfo) -> str:
    if location.folder is not None:
        return f"sha256:{sha256_of(local_path(location.folder, info.key))}"
    return info.etag


def _tree(store: ObjectStore, wanted: Wanted | None) -> list[ObjectInfo]:
    found = [info for info in store.list() if not any(part.startswith(".") for part in info.key.split("/"))]
    if not found:
        raise ObjectNotFound(f"{store.uri} holds no files; check the path.")
    return [info for info in found if wanted is None or wanted(info.key)]


def _digest(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
