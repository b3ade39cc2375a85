"""*remove*: deletes versions that a resource made, and checkpoints of its runs, from the registry.

    which versions -> each: made by this resource? served? named by an alias? -> gone, or kept and why -> checkpoints

By the registry's rules: a version stops existing in one step, with its run key's lookup, before its first file goes. So
it may be cut off anywhere; run again, it finishes. What is gone already counts as removed. Imports no torch.
"""

import logging

from pydantic import ValidationError

from luthier_api.documents import Origin, Place, Removal, Removed
from luthier_artifacts import (
    BucketNotFound,
    IntegrityError,
    Manifest,
    ObjectNotFound,
    PreconditionFailed,
    Registry,
    StorageConfig,
    open_registry,
)

IN_USE = "A ModelDeployment serves it."

log = logging.getLogger(__name__)


def remove(removal: Removal) -> Removed:
    """Remove the versions, and report what became of each.

    Raises:
        StorageError: if storage refuses or does not answer; what is gone by then stays gone.
    """
    removed: list[str] = []
    kept: dict[str, str] = {}
    for place in removal.places:
        try:
            _remove_from(place, removal, removed, kept)
        except BucketNotFound as error:
            # The bucket took along whatever lay in it.
            log.warning("%s", error)
    gone = [version for version in removal.versions or () if version not in removed and version not in kept]
    log.info("removed %d versions, kept %d", len(removed) + len(gone), len(kept))
    return Removed(removed=sorted(removed + gone), kept=kept)


def _remove_from(place: Place, removal: Removal, removed: list[str], kept: dict[str, str]) -> None:
    registry = open_registry(place.uri, place.name, StorageConfig.from_access(removal.output_access))
    registry.finish_removals()
    registry.sweep_abandoned()
    wanted = removal.versions
    for version in registry.list_versions():
        if wanted is not None and version not in wanted:
            continue
        try:
            manifest = registry.get_manifest(version)
        except ObjectNotFound:
            removed.append(version)  # by another process, just now
            continue
        except IntegrityError:
            # There is no way to know whose it is.
            kept[version] = "Its manifest is damaged; remove it by hand."
            continue
        if wanted is None and _origin(manifest) != removal.origin.uid:
            continue
        if why := _reason_to_keep(manifest, removal) or _delete(registry, version):
            kept[version] = why
        else:
            log.info("removed %s", registry.version_uri(version))
            removed.append(version)
    for run_key in removal.run_keys:
        registry.prune_checkpoints(run_key, keep=0)


def _reason_to_keep(manifest: Manifest, removal: Removal) -> str | None:
    if _origin(manifest) != removal.origin.uid:
        return "Another resource made it."
    return IN_USE if manifest.version in removal.in_use else None


def _delete(registry: Registry, version: str) -> str | None:
    """Delete a version, or return why it stays: aliases are looked at in this very moment."""
    try:
        registry.delete_version(version)
    except PreconditionFailed as error:
        return str(error)[:300]
    except ObjectNotFound:
        log.info("%s was removed by another process", version)
    return None


def _origin(manifest: Manifest) -> str | None:
    """Return the uid of the resource that made a version; a manifest may say anything."""
    try:
        return Origin.model_validate(manifest.lineage.run_document.get("origin")).uid
    except ValidationError:
        return None
