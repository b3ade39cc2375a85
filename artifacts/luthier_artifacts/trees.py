"""Trees: a folder in storage that exists, whole and for ever, when its manifest does.

The one mechanism behind versions, checkpoints and prepared data. Files go first and the manifest last, conditionally,
so a reader either finds nothing or finds everything. What a version needs beyond that, because two trainers may
produce the same one, is in `publishing`.

A tree whose place is known before it is written (a checkpoint, prepared data) may be written twice at once, or again
by a process that was thought dead. Its files therefore lie in a subfolder of their own for each attempt, which the
manifest names, so that no attempt can touch the bytes that another attempt's manifest promises.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier_artifacts.download import download_files
from luthier_artifacts.errors import IntegrityError, ObjectNotFound, PreconditionFailed
from luthier_artifacts.hashing import describe_folder
from luthier_artifacts.manifest import MANIFEST_NAME, FileEntry, Manifest, parse_manifest, tree_digest
from luthier_artifacts.store import ObjectStore, Progress
from luthier_artifacts.uri import join_key, local_path

WRITE_ATTEMPTS = 5


@dataclass(frozen=True)
class Slot:
    """What lies where a manifest belongs: a manifest, nothing, a seal (no bytes) or something damaged (`flaw`)."""

    manifest: Manifest | None = None
    etag: str | None = None
    flaw: IntegrityError | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing lies there."""
        return self.etag is None


def manifest_key(place: str) -> str:
    """Key of the manifest of the tree at `place`."""
    return join_key(place, MANIFEST_NAME)


def read_slot(store: ObjectStore, place: str) -> Slot:
    """Read what lies where the manifest of the tree at `place` belongs."""
    key = manifest_key(place)
    try:
        data, etag = store.read(key)
    except ObjectNotFound:
        return Slot()
    if not data:
        return Slot(None, etag)
    try:
        return Slot(parse_manifest(data, f"{store.uri}/{key}"), etag)
    except IntegrityError as error:
        return Slot(None, etag, error)


def read_manifest(store: ObjectStore, place: str) -> Manifest:
    """Return the manifest of the tree at `place`.

    Raises:
        ObjectNotFound: if there is none.
        IntegrityError: if what lies there is damaged.
    """
    slot = read_slot(store, place)
    if slot.flaw:
        raise slot.flaw
    if slot.manifest is None:
        raise ObjectNotFound(f"{join_key(store.uri, place)} does not exist: it has no manifest.json; check the path.")
    return slot.manifest


def put_tree(store: ObjectStore, place: str, folder: Path, *, created_at: str, **facts: Any) -> Manifest:
    """Write a folder as the tree at `place`, or return the tree that is there already.

    Args:
        store: Where to write.
        place: Key of the tree's folder.
        folder: Local files.
        created_at: RFC 3339 timestamp.
        **facts: Other fields of the manifest.
    """
    slot = read_slot(store, place)
    if slot.manifest:
        return slot.manifest
    writer = secrets.token_hex(8)
    files = describe_folder(folder)
    manifest = Manifest.model_validate(
        {"name": place, "version": place, **facts}
        | {"created_at": created_at, "writer": writer, "folder": writer, "files": files, "digest": tree_digest(files)}
    )
    upload_tree(store, place, manifest, folder)
    return _settle(store, place, manifest, slot)


def upload_tree(
    store: ObjectStore, place: str, manifest: Manifest, folder: Path, progress: Progress | None = None
) -> None:
    """Upload the files of a tree that is not there yet, and check that storage lists each with its size.

    Raises:
        IntegrityError: if it does not.
    """
    wanted = file_keys(place, manifest)
    store.upload({key: local_path(folder, entry.path) for key, entry in wanted.items()}, progress)
    found = {info.key: info.size for info in store.list(join_key(place, manifest.folder))}
    for key, entry in wanted.items():
        if found.get(key) != entry.size:
            raise IntegrityError(
                f"{store.uri}/{key} has {found.get(key)} bytes after an upload of {entry.size}; "
                "the file changed meanwhile, or storage lost it."
            )


def get_tree(store: ObjectStore, place: str, into: Path, cache: Path | None = None) -> Manifest:
    """Download the tree at `place`, verified.

    Raises:
        ObjectNotFound: if there is no manifest.
        IntegrityError: if the manifest is damaged, or a file is not what it says.
    """
    manifest = read_manifest(store, place)
    download_tree(store, place, manifest, into, cache)
    return manifest


def download_tree(store: ObjectStore, place: str, manifest: Manifest, into: Path, cache: Path | None) -> None:
    """Download the files that a manifest names, verified; see `download.download_files`."""
    download_files(store, file_keys(place, manifest), into, cache)


def delete_tree(store: ObjectStore, place: str) -> None:
    """Delete a tree; it stops existing with the first step, and the rest may be repeated."""
    store.delete([manifest_key(place)])
    store.delete([info.key for info in store.list(place)])


def file_keys(place: str, manifest: Manifest) -> dict[str, FileEntry]:
    """Return {key in the store: file} for every file of a tree."""
    root = join_key(place, manifest.folder)
    return {join_key(root, entry.path): entry for entry in manifest.files}


def tree_names(store: ObjectStore, prefix: str) -> list[str]:
    """Return the names of the folders directly below a prefix where a manifest of more than no bytes lies, sorted."""
    names = []
    for info in store.list(prefix):
        name, _, rest = info.key.removeprefix(f"{prefix}/").partition("/")
        if rest == MANIFEST_NAME and info.size > 0:
            names.append(name)
    return sorted(names)


def _settle(store: ObjectStore, place: str, manifest: Manifest, slot: Slot) -> Manifest:
    """Write the manifest last; when another attempt was faster, its tree is the one, and our files go."""
    key = manifest_key(place)
    data = manifest.to_json(indent=1).encode()
    for _ in range(WRITE_ATTEMPTS):
        try:
            store.write(key, data, if_absent=slot.empty, if_match=slot.etag)
            return manifest
        except PreconditionFailed:
            slot = read_slot(store, place)
        if slot.manifest and slot.manifest.writer == manifest.writer:
            return manifest
        if slot.manifest:
            store.delete(file_keys(place, manifest))
            return slot.manifest
    raise PreconditionFailed(f"{store.uri}/{key} is written by others again and again; try again later.")
