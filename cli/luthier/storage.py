"""The registry, reached with the user's own keys: versions, their files, and aliases.

The keys are those that any S3 tool of the user finds (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...), never the cluster's
Secrets. The endpoint in a resource is often a name inside the cluster; so AWS_ENDPOINT_URL goes before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import Denied, Invalid, LuthierError, NotFound, Unreachable
from luthier.kinds import Raw, Resource
from luthier_artifacts import (
    BucketNotFound,
    CredentialsExpired,
    InvalidKey,
    InvalidUri,
    Manifest,
    ObjectNotFound,
    PreconditionFailed,
    Registry,
    StorageConfig,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    download_version,
    open_registry,
    open_store,
)

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_MAPPED: tuple[tuple[tuple[type[StorageError], ...], type[LuthierError]], ...] = (
    ((ObjectNotFound, BucketNotFound), NotFound),
    ((StorageDenied, CredentialsExpired), Denied),
    ((InvalidKey, InvalidUri, PreconditionFailed), Invalid),
    ((StorageUnavailable,), Unreachable),
)
__all__ = [
    "Place",
    "config_of",
    "fetch",
    "list_all",
    "manifest_at",
    "place_of",
    "read_json",
    "sign_at",
    "split_version_uri",
    "told",
]


@contextmanager
def told() -> Iterator[None]:
    """Turn what storage says into our errors, with what to do where that is a matter of this machine."""
    try:
        yield
    except StorageError as error:
        kind = next((ours for theirs, ours in _MAPPED if isinstance(error, theirs)), LuthierError)
        sentence = str(error)
        if kind is Denied:
            sentence += " Your own keys are used here: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        if kind is Unreachable:
            sentence += " If the endpoint is a name inside the cluster, forward its port and set AWS_ENDPOINT_URL."
        raise kind(sentence) from error


def config_of(access: Raw) -> StorageConfig:
    """Return how storage is reached from here, given an `output` or `model` of a spec."""
    named = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    bundle = os.environ.get("AWS_CA_BUNDLE")
    return StorageConfig(
        endpoint=named or access.get("endpoint"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or access.get("region"),
        ca_bundle=Path(bundle) if bundle else None,
        force_path_style=None if named else access.get("forcePathStyle"),
        # Read for each request: a notebook lives longer than the keys that it was started with.
        credentials_env="" if os.environ.get(ACCESS_KEY) else None,
        max_attempts=2,
    )


@dataclass(frozen=True)
class Place:
    """Where a model's versions lie, and how they are reached."""

    uri: str
    name: str
    config: StorageConfig

    @property
    def registry(self) -> Registry:
        """The registry of this model."""
        with told():
            return open_registry(self.uri, self.name, self.config)


def place_of(job: Resource) -> Place:
    """Return where a FineTuneJob publishes its versions."""
    output = job.spec["output"]
    return Place(output["uri"], output["name"], config_of(output))


def split_version_uri(uri: str) -> tuple[str, str, str] | None:
    """Return (uri, name, version) of <uri>/<name>/versions/<version>, or None for anything else."""
    parts = uri.rstrip("/").rsplit("/", 3)
    return (parts[0], parts[1], parts[3]) if len(parts) == 4 and parts[2] == "versions" and "://" in uri else None


def manifest_at(uri: str, config: StorageConfig) -> Manifest:
    """Return the manifest of a version, by the URI of its folder. Raises NotFound, Denied, Unreachable, Invalid."""
    registry, version = _registry_of(uri, config)
    with told():
        return registry.get_manifest(version)


def sign_at(
    uri: str, config: StorageConfig, private_key: bytes, password: bytes | None = None, digest: str | None = None
) -> Manifest:
    """Sign a version, by the URI of its folder, and return its manifest. Raises as `manifest_at`.

    Args:
        uri: Folder of the version.
        config: How storage is reached; the keys must be allowed to write.
        private_key: PEM of an ECDSA key.
        password: Of that key, if it is encrypted.
        digest: What the version's digest must be, if that is known.
    """
    registry, version = _registry_of(uri, config)
    with told():
        return registry.sign(version, private_key, password, digest=digest)


def _registry_of(uri: str, config: StorageConfig) -> tuple[Registry, str]:
    """Return the registry of a version's model, and the version."""
    found = split_version_uri(uri)
    if found is None:
        raise Invalid(
            f"{uri} is not the folder of a version; it looks like s3://bucket/prefix/<name>/versions/<version>."
        )
    folder, name, version = found
    with told():
        return open_registry(folder, name, config), version


def fetch(uri: str, config: StorageConfig, file: str, into: Path) -> Path:
    """Download one file of a version, verified, and return where it lies.

    Raises:
        NotFound: if the version does not have it.
    """
    manifest = manifest_at(uri, config)
    if manifest.file(file) is None:
        raise NotFound(f"Version {manifest.version} has no {file}; it may be of an earlier release.")
    with told():
        download_version(uri, into, config, digest=manifest.digest, choose=lambda paths: [file])
    return into / file


def read_json(uri: str, config: StorageConfig, file: str) -> dict[str, Any]:
    """Return a small JSON document of a version; empty if the version does not have it."""
    with told():
        try:
            data, _ = open_store(uri, config).read(file)
        except ObjectNotFound:
            return {}
    found = json.loads(data)
    return found if isinstance(found, dict) else {}


def list_all(place: Place) -> list[Manifest]:
    """Return the manifests of all versions of a model, newest first."""
    registry = place.registry
    with told():
        return [registry.get_manifest(version) for version in reversed(registry.list_versions())]
