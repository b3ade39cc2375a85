"""What a run reads: datasets and base models, as files or whole folders, from s3://, pvc:// and file://.

Nothing here has a manifest, so nothing can be verified against one. What was read is identified by a digest over its
bytes, and a file that changes while it is read is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from luthier_artifacts.config import StorageConfig
from luthier_artifacts.download import fetch_all, open_cache, place_folder
from luthier_artifacts.errors import InvalidUri, ObjectNotFound
from luthier_artifacts.hashing import verify_folder
from luthier_artifacts.manifest import FileEntry, tree_digest
from luthier_artifacts.opening import open_location, open_store
from luthier_artifacts.parts import PartialFile
from luthier_artifacts.store import ObjectInfo, ObjectStore
from luthier_artifacts.uri import parse_uri

Wanted = Callable[[str], bool]


@dataclass(frozen=True)
class FetchedTree:
    """The files of a folder that was downloaded: {path: entry}."""

    files: dict[str, FileEntry]

    @property
    def digest(self) -> str:
        """Digest, "sha256:<hex>", over paths, sizes and sha256: the same for the same bytes wherever they lie."""
        return tree_digest(self.files.values())


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


def list_tree(uri: str, config: StorageConfig | None = None, *, wanted: Wanted | None = None) -> list[ObjectInfo]:
    """List what `fetch_tree` would download: what is there is the same as long as this is.

    Raises:
        ObjectNotFound: if there are no files.
    """
    return _tree(open_store(uri, config), wanted)


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
    store, infos = list_files(uri, config, wanted=wanted)
    return _fetch(store, infos, dest, cache)


def list_files(
    uri: str, config: StorageConfig | None = None, *, wanted: Wanted | None = None
) -> tuple[ObjectStore, list[ObjectInfo]]:
    """List what `fetch_files` would download, in order, and the store in which the keys are.

    Raises:
        ObjectNotFound: if there are none.
        InvalidUri: if * stands in another part.
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
    return store, sorted(infos, key=lambda info: info.key)


def fetch_listed(store: ObjectStore, info: ObjectInfo, dest: Path) -> None:
    """Download one listed file; it must be the one that was listed. What an earlier attempt left there goes on.

    Raises:
        PreconditionFailed, IntegrityError: if it is another by now.
        ObjectNotFound: if it is gone.
    """
    with ThreadPoolExecutor(store.concurrency) as pool:
        PartialFile(dest, store, info.key, info.size, info.etag).fetch(pool)


def names_matching(names: Iterable[str], path: str) -> list[str]:
    """Return, in order, those of a folder's names that a path names, by the rules of `fetch_files`."""
    if path.endswith("/"):
        return sorted(name for name in names if name.startswith(path) and not _is_hidden(name[len(path) :]))
    folder, slash, pattern = path.rpartition("/")
    matches = re.compile(re.escape(folder + slash) + _regex(pattern)).fullmatch
    hidden = pattern.startswith(".")
    return sorted(name for name in names if matches(name) and (hidden or not _is_hidden(name[len(folder + slash) :])))


def _matching(store: ObjectStore, pattern: str) -> list[ObjectInfo]:
    """List the files directly in a store's folder whose names match; a hidden one only if the pattern begins so."""
    matches = re.compile(_regex(pattern)).fullmatch
    hidden = pattern.startswith(".")
    return [info for info in store.list() if matches(info.key) and (hidden or not _is_hidden(info.key))]


def _regex(pattern: str) -> str:
    return "[^/]*".join(re.escape(piece) for piece in pattern.split("*"))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


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


def _tree(store: ObjectStore, wanted: Wanted | None) -> list[ObjectInfo]:
    found = [info for info in store.list() if not _is_hidden(info.key)]
    if not found:
        raise ObjectNotFound(f"{store.uri} holds no files; check the path.")
    return [info for info in found if wanted is None or wanted(info.key)]
