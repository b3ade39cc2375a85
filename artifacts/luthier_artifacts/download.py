"""From storage into a folder: through the node's cache, verified, whole or not at all.

The folder is filled beside itself, with links into the cache or copies, and renamed into place when everything is
there.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from luthier_artifacts.cache import NodeCache
from luthier_artifacts.errors import StorageError
from luthier_artifacts.hashing import verify_folder
from luthier_artifacts.manifest import FileEntry
from luthier_artifacts.store import ObjectStore
from luthier_artifacts.uri import local_path

FILES_AT_ONCE = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def download_files(store: ObjectStore, files: Mapping[str, FileEntry], into: Path, cache: Path | None = None) -> None:
    """Download {key: entry} so that `into` holds exactly these files, verified, or is not changed at all.

    Args:
        store: Where the keys lie.
        files: What to download; entry.path says where under `into`.
        into: Must not exist, be empty, or hold exactly these files already. Not a mount point, but a folder in one.
        cache: Folder of a node cache; without one, a hidden folder beside `into` that is removed on success, so that
            two processes must not fill the same `into`.

    Raises:
        IntegrityError: if an object is not what its entry says, or `into` holds something else.
    """
    entries = list(files.values())
    if into.exists() and any(into.iterdir()):
        verify_folder(into, entries)
        return
    with open_cache(into, cache) as node_cache:

        def fetch(item: tuple[str, FileEntry], parts: ThreadPoolExecutor) -> Path:
            return node_cache.fetch(store, item[0], item[1], parts)

        fetch_all(fetch, files.items(), store.concurrency)
        place_folder(node_cache, entries, into)


@contextmanager
def open_cache(into: Path, cache: Path | None) -> Iterator[NodeCache]:
    """Give the node's cache, or one beside `into` that is removed at the end; a failure leaves it, to go on from."""
    into.parent.mkdir(parents=True, exist_ok=True)
    node_cache = NodeCache(cache or into.parent / f".{into.name}.luthier-cache")
    yield node_cache
    if cache is None:
        shutil.rmtree(node_cache.folder)


def fetch_all(
    fetch: Callable[[Item, ThreadPoolExecutor], Result], items: Iterable[Item], concurrency: int
) -> list[Result]:
    """Fetch several files side by side; their parts share one set of threads, which waits for nothing but storage."""
    with ThreadPoolExecutor(concurrency) as parts, ThreadPoolExecutor(FILES_AT_ONCE) as files:
        return list(files.map(lambda item: fetch(item, parts), items))


def place_folder(cache: NodeCache, entries: list[FileEntry], into: Path) -> None:
    """Make `into` a folder of cached files, in one step.

    Raises:
        IntegrityError: if another process put something else there meanwhile.
    """
    stage = Path(tempfile.mkdtemp(prefix=f".{into.name}.", suffix=".partial", dir=into.parent))
    try:
        stage.chmod(0o755)
        for entry in entries:
            link_or_copy(cache.path(entry.sha256), local_path(stage, entry.path))
        try:
            stage.rename(into)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise StorageError(
                    f"{into} cannot be put in place: {error.strerror}; name a new folder, inside a mount if need be."
                ) from error
            # Another process filled the same folder meanwhile.
            verify_folder(into, entries)
    finally:
        if stage.exists():
            shutil.rmtree(stage)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or where the file system will not have that, a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
