"""The registry: one model's versions, runs, aliases, checkpoints and prepared data below <uri>/<name>.

The face of the package: it checks names and puts the parts together. How versions come to exist is in `publishing`,
how trees are written and read in `trees`, how they go in `pruning`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from luthier_api.artifact_files import VERSION_PATTERN
from luthier_artifacts.aliases import Alias, Aliases
from luthier_artifacts.claims import LAPSE_S, Claim, Holder
from luthier_artifacts.config import StorageConfig
from luthier_artifacts.errors import IntegrityError, InvalidUri, ObjectNotFound, PreconditionFailed
from luthier_artifacts.hashing import describe_folder
from luthier_artifacts.manifest import SIGNATURE_NAME, Manifest, Metadata, reserved_name
from luthier_artifacts.opening import open_store
from luthier_artifacts.probe import probe_conditional_writes
from luthier_artifacts.pruning import half_removed, prune_steps, remove_version, sweep_abandoned
from luthier_artifacts.publishing import Publisher
from luthier_artifacts.store import ObjectStore, Progress
from luthier_artifacts.trees import (
    delete_tree,
    download_tree,
    get_tree,
    put_tree,
    read_manifest,
    read_slot,
    tree_names,
)
from luthier_artifacts.weights import WeightsIndex

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[0-9a-f]{8,64}")
_VERSION = re.compile(VERSION_PATTERN)


def utc_now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class PublishedVersion:
    """A version that exists. `reused` tells that it was found, or that another writer was faster."""

    version: str
    uri: str
    manifest: Manifest
    reused: bool

    @property
    def digest(self) -> str:
        """Digest over the files, "sha256:<hex>"."""
        return self.manifest.digest

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return self.manifest.size_bytes


class Registry:
    """The versions of one model in one store.

    Args:
        store: Where `output.uri` points.
        name: Name of the model, the folder below it.
        clock: Source of version ids and timestamps.
        claim_grace_s: How long another writer that is about to publish the same run is waited for.
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        *,
        clock: Callable[[], datetime] = utc_now,
        claim_grace_s: float = 2.0,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidUri(f"{name!r} is no model name; use lower-case letters, digits, '-' and '.'.")
        self._store = store
        self._name = name
        self._clock = clock
        self._publisher = Publisher(store, name, clock, claim_grace_s)
        self._aliases = Aliases(store, name)
        self._weights = WeightsIndex(store, name)
        self._proved = False

    def probe_conditional_writes(self) -> None:
        """Prove that storage can be written and honours conditions; asked once for each registry object.

        Raises:
            ConditionalWritesUnsupported: if the server ignores If-None-Match or If-Match.
            StorageDenied: if the credentials may not write.
            BucketNotFound: if the bucket does not exist.
        """
        if not self._proved:
            probe_conditional_writes(self._store, self._name)
            self._proved = True

    def publish(
        self, folder: Path, run_key: str, metadata: Metadata, *, progress: Progress | None = None
    ) -> PublishedVersion:
        """Publish a folder as the version of a run, or return the version that the run has already.

        Args:
            folder: Local files; nothing may write to them meanwhile.
            run_key: Hash of what decides the result, 8 to 64 hex digits.
            metadata: What the manifest says about the version.
            progress: Called with numbers of bytes as they are uploaded, from several threads.

        Raises:
            ConditionalWritesUnsupported: if the server could lose a race without saying so.
            IntegrityError: if a file changes meanwhile.
            InvalidUri: if a file's name cannot be stored, or is the registry's own.
        """
        _check_key(run_key)
        self.probe_conditional_writes()
        if found := self.find_run(run_key):
            return found
        files = describe_folder(folder)
        if reserved := reserved_name(files):
            raise InvalidUri(f"The file name {reserved!r} is the registry's own; rename the file in {folder}.")
        manifest, reused = self._publisher.publish(folder, files, run_key, metadata, progress)
        return self._published(manifest, reused)

    def find_run(self, run_key: str) -> PublishedVersion | None:
        """Return the version that a run produced, or None."""
        manifest = self._publisher.find(_check_key(run_key))
        return self._published(manifest, reused=True) if manifest else None

    def record_weights(self, weights_key: str, version: str) -> None:
        """Remember that a version has the weights of this key, unless one that exists is known."""
        if self.find_weights(weights_key) is None:
            self._weights.put(_check_key(weights_key), _check_version(version))

    def find_weights(self, weights_key: str) -> Manifest | None:
        """Return the manifest of a version that is recorded to have the weights of this key, if it exists.

        Whoever uses them checks that the manifest says so too.
        """
        version = self._weights.get(_check_key(weights_key))
        return read_slot(self._store, self._place(version)).manifest if version else None

    def claim(self, key: str, holder: Holder, *, trains: bool, lapse_s: float = LAPSE_S) -> Claim:
        """Return this process's side of the claim on a run; nothing is claimed yet. See `claims`."""
        self.probe_conditional_writes()
        place = f"{self._name}/claims/{_check_key(key)}.json"
        return Claim(self._store, place, key, holder, trains=trains, lapse_s=lapse_s)

    def get_manifest(self, version: str) -> Manifest:
        """Return a version's manifest.

        Raises:
            ObjectNotFound: if there is no such version.
            IntegrityError: if its manifest is damaged.
        """
        return read_manifest(self._store, self._place(version))

    def version_uri(self, version: str) -> str:
        """URI of a version's folder."""
        return f"{self._store.uri}/{self._place(version)}"

    def list_versions(self) -> list[str]:
        """Return all versions, oldest first."""
        return [name for name in tree_names(self._store, f"{self._name}/versions") if _VERSION.fullmatch(name)]

    def download(self, version: str | Manifest, into: Path, cache: Path | None = None) -> Manifest:
        """Download a version, verified; see `download.download_files` for `into` and `cache`."""
        manifest = version if isinstance(version, Manifest) else self.get_manifest(version)
        download_tree(self._store, self._place(manifest.version), manifest, into, cache)
        return manifest

    def sign(
        self, version: str, private_key: bytes, password: bytes | None = None, *, digest: str | None = None
    ) -> Manifest:
        """Sign a version, in place of an earlier signature, and return its manifest.

        Args:
            version: Which one.
            private_key: See `signatures.sign`.
            password: Of the key.
            digest: What the version's digest must be.

        Raises:
            ObjectNotFound: if there is no such version.
            IntegrityError: if its digest differs.
            InvalidKey: if the key cannot sign.
        """
        # Here, because nothing else needs cryptography.
        from luthier_artifacts.signatures import sign

        manifest = self.get_manifest(version)
        if digest not in (None, manifest.digest):
            raise IntegrityError(
                f"{self.version_uri(version)} has the digest {manifest.digest} instead of {digest}; it was replaced, "
                "and is not signed."
            )
        self._store.write(f"{self._place(version)}/{SIGNATURE_NAME}", sign(manifest, private_key, password))
        return manifest

    def get_alias(self, alias: str) -> Alias | None:
        """Return where an alias points, or None."""
        return self._aliases.get(alias)

    def list_aliases(self) -> list[Alias]:
        """Return all aliases, by name."""
        return list(self._aliases.all())

    def set_alias(self, alias: str, version: str, *, replacing: Alias | None) -> Alias:
        """Make an alias (`replacing=None`), or move it from where it was read.

        Raises:
            ObjectNotFound: if there is no such version.
            PreconditionFailed: if somebody else moved or made the alias first.
        """
        self.get_manifest(version)
        return self._aliases.put(alias, version, replacing=replacing, moved_at=self._timestamp())

    def delete_version(self, version: str) -> None:
        """Delete a version; it stops existing at once, and a retry finishes what was cut off.

        Raises:
            ObjectNotFound: if there is no such version.
            PreconditionFailed: if an alias points at it.
        """
        if read_slot(self._store, self._place(version)).empty:
            raise ObjectNotFound(f"{self.version_uri(version)} does not exist; check the version.")
        for alias in self._aliases.all():
            if alias.version == version:
                raise PreconditionFailed(f"The alias {alias.alias} points at {version}; move the alias first.")
        remove_version(self._publisher, version)

    def finish_removals(self) -> list[str]:
        """Delete the files that removals which were cut off have left, and return of which versions they were."""
        found = half_removed(self._publisher)
        for version in found:
            remove_version(self._publisher, version)
        return found

    def sweep_abandoned(self) -> list[str]:
        """Delete what writers left that were killed long ago, and return the names of the folders."""
        return sweep_abandoned(self._publisher, self._clock())

    def checkpoints(self, run_key: str) -> list[int]:
        """Return the steps of a run's valid checkpoints, ascending."""
        folder = self._run_checkpoints(run_key)
        steps = sorted(int(name) for name in tree_names(self._store, folder) if name.isdigit())
        return [step for step in steps if read_slot(self._store, f"{folder}/{step}").manifest]

    def put_checkpoint(self, run_key: str, step: int, folder: Path) -> Manifest:
        """Write a checkpoint, or return the one that is there."""
        return self._put(f"{self._run_checkpoints(run_key)}/{step}", folder, run_key=run_key)

    def get_checkpoint(self, run_key: str, step: int, into: Path, cache: Path | None = None) -> Manifest:
        """Download a checkpoint, verified. Raises ObjectNotFound, IntegrityError."""
        return get_tree(self._store, f"{self._run_checkpoints(run_key)}/{step}", into, cache)

    def delete_checkpoint(self, run_key: str, step: int) -> None:
        """Delete a checkpoint, its manifest first."""
        delete_tree(self._store, f"{self._run_checkpoints(run_key)}/{step}")

    def prune_checkpoints(self, run_key: str, keep: int) -> None:
        """Delete all but a run's newest `keep` checkpoints (0: all), and what killed writers left of older ones."""
        prune_steps(self._store, self._run_checkpoints(run_key), keep)

    def put_prepared(self, data_key: str, folder: Path) -> Manifest:
        """Write prepared data, or return the manifest of what is there."""
        return self._put(self._prepared(data_key), folder)

    def find_prepared(self, data_key: str) -> Manifest | None:
        """Return the manifest of prepared data, or None."""
        return read_slot(self._store, self._prepared(data_key)).manifest

    def get_prepared(self, data_key: str, into: Path, cache: Path | None = None) -> Manifest:
        """Download prepared data, verified. Raises ObjectNotFound, IntegrityError."""
        return get_tree(self._store, self._prepared(data_key), into, cache)

    def _put(self, place: str, folder: Path, run_key: str | None = None) -> Manifest:
        self.probe_conditional_writes()
        return put_tree(self._store, place, folder, created_at=self._timestamp(), name=self._name, run_key=run_key)

    def _published(self, manifest: Manifest, reused: bool) -> PublishedVersion:
        return PublishedVersion(manifest.version, self.version_uri(manifest.version), manifest, reused)

    def _place(self, version: str) -> str:
        return self._publisher.place(_check_version(version))

    def _run_checkpoints(self, run_key: str) -> str:
        return f"{self._name}/checkpoints/{_check_key(run_key)}"

    def _prepared(self, data_key: str) -> str:
        return f"{self._name}/prepared/{_check_key(data_key)}"

    def _timestamp(self) -> str:
        return f"{self._clock():%Y-%m-%dT%H:%M:%SZ}"


def open_registry(uri: str, name: str, config: StorageConfig | None = None) -> Registry:
    """Return the registry of one model below s3://bucket/prefix or file:///folder."""
    return Registry(open_store(uri, config), name)


def _check_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidUri(f"{key!r} is no key; keys are 8 to 64 hexadecimal digits.")
    return key


def _check_version(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise InvalidUri(f"{version!r} is no version; versions look like 20260131-235959-0a1b2c3d.")
    return version
