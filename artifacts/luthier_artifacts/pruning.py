"""Removing versions and checkpoints, and what killed writers left behind.

A version is removed by sealing it (see `publishing`): its manifest is replaced by an empty object, so it stops
existing in one step and cannot come back by a request that was under way. Then its files go, and much later the seal.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import groupby

from luthier_artifacts.manifest import MANIFEST_NAME
from luthier_artifacts.publishing import Publisher
from luthier_artifacts.store import ObjectStore
from luthier_artifacts.trees import manifest_key, tree_names

# No upload pauses for a week, and no request is under way for so long.
ABANDONED_AFTER = timedelta(days=7)


def remove_version(publisher: Publisher, version: str) -> None:
    """Make a version stop existing, then delete its files; safe to repeat."""
    place = publisher.place(version)
    publisher.store.write(manifest_key(place), b"")
    kept = manifest_key(place)
    publisher.store.delete([info.key for info in publisher.store.list(place) if info.key != kept])


def half_removed(publisher: Publisher) -> list[str]:
    """Return the versions that are sealed, so that they can never exist, and of which files are left.

    A removal that was cut off leaves them, and so does a publisher that lost a race; nobody reads or needs the files.
    """
    prefix = publisher.place("")
    found = []
    for version, group in groupby(
        publisher.store.list(prefix.rstrip("/")), key=lambda info: info.key.removeprefix(prefix).partition("/")[0]
    ):
        objects = {info.key: info for info in group}
        seal = objects.pop(f"{prefix}{version}/{MANIFEST_NAME}", None)
        if seal is not None and seal.size == 0 and objects:
            found.append(version)
    return found


def sweep_abandoned(publisher: Publisher, now: datetime) -> list[str]:
    """Delete what writers left that were killed, lost a race or were removed; return the folders' names.

    A folder without a manifest in which nothing was written for ABANDONED_AFTER is sealed and emptied; one that holds a
    seal of that age is deleted with its seal. Claims of runs that failed and were never tried again go too.
    """
    prefix = publisher.place("")
    swept = []
    found = list(publisher.store.list(prefix.rstrip("/")))
    for version, group in groupby(found, key=lambda info: info.key.removeprefix(prefix).partition("/")[0]):
        objects = list(group)
        manifest = next((info for info in objects if info.key == f"{prefix}{version}/{MANIFEST_NAME}"), None)
        if (manifest and manifest.size > 0) or any(now - info.modified < ABANDONED_AFTER for info in objects):
            continue
        # Sealing is refused when the version is sealed already, or is published at this very moment.
        if manifest or publisher.seal(version):
            publisher.store.delete([info.key for info in objects])
            swept.append(version)
    # A live claim is written several times a minute.
    claims = publisher.store.list(f"{publisher.name}/claims")
    publisher.store.delete([info.key for info in claims if now - info.modified >= ABANDONED_AFTER])
    return swept


def prune_steps(store: ObjectStore, place: str, keep: int) -> None:
    """Delete the trees at `place`/<number> but those of the `keep` highest numbers, and whatever lies below those.

    Manifests go first, so that nothing exists in part. What lies at a higher number without a manifest stays, because
    it may be about to exist; only `keep` 0 deletes that too.
    """
    steps = sorted(int(name) for name in tree_names(store, place) if name.isdigit())
    kept = steps[-keep:] if keep > 0 else []
    if keep > 0 and not kept:
        return
    store.delete([manifest_key(f"{place}/{step}") for step in steps if step not in kept])

    def goes(key: str) -> bool:
        name = key.removeprefix(f"{place}/").partition("/")[0]
        return not kept or (name.isdigit() and int(name) < kept[0])

    store.delete([info.key for info in store.list(place) if goes(info.key)])
