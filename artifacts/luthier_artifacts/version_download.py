"""A version by the URI of its folder alone: what a server loads, verified, through the cache of its node."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from luthier_artifacts.cache import NodeCache
from luthier_artifacts.config import StorageConfig
from luthier_artifacts.download import download_files
from luthier_artifacts.errors import IntegrityError, ObjectNotFound, SignatureError
from luthier_artifacts.manifest import SIGNATURE_NAME, Manifest
from luthier_artifacts.opening import open_store
from luthier_artifacts.store import ObjectStore
from luthier_artifacts.trees import file_keys, read_manifest


def download_version(
    version_uri: str,
    into: Path,
    config: StorageConfig | None = None,
    *,
    cache: Path | None = None,
    digest: str | None = None,
    choose: Callable[[list[str]], Collection[str]] | None = None,
    trusted_keys: str | None = None,
) -> Manifest:
    """Download a version that is named by the URI of its folder, or some of its files, verified.

    Args:
        version_uri: <uri>/<name>/versions/<version>.
        into: Folder that will hold the files; see `download.download_files`.
        config: How to reach storage.
        cache: Folder of the node's cache.
        digest: What the manifest's digest must be. If the cache holds that version, storage is not asked for anything.
        choose: Given the paths of all files, returns those that are wanted; without it, all.
        trusted_keys: Public keys in PEM, one of which must have signed the version; None: no signature is asked for.

    Raises:
        ObjectNotFound: if there is no such version.
        IntegrityError: if the digest differs, or a file is not what the manifest says.
        SignatureError: if none of the trusted keys has signed the version.
        InvalidKey: if they are no keys.
    """
    store = open_store(version_uri, config)
    node_cache = NodeCache(cache) if cache else None
    manifest = _manifest_of(store, digest, node_cache)
    if trusted_keys is not None:
        _check_signature(store, manifest, trusted_keys, node_cache)
    files = file_keys("", manifest)
    if choose is not None:
        wanted = set(choose([entry.path for entry in manifest.files]))
        files = {key: entry for key, entry in files.items() if entry.path in wanted}
    download_files(store, files, into, cache)
    return manifest


def _manifest_of(store: ObjectStore, digest: str | None, cache: NodeCache | None) -> Manifest:
    """Return a version's manifest; storage is not asked for one of a known digest that the cache has."""
    if cache and digest and (kept := cache.manifest(store.uri, digest)):
        return kept
    manifest = read_manifest(store, "")
    if digest is not None and manifest.digest != digest:
        raise IntegrityError(f"{store.uri} has the digest {manifest.digest} instead of {digest}; it was replaced.")
    if cache:
        cache.keep_manifest(store.uri, manifest)
    return manifest


def _check_signature(store: ObjectStore, manifest: Manifest, trusted_keys: str, cache: NodeCache | None) -> None:
    """Check the signature that the cache has; if that will not do, the one in storage, which may be a newer one."""
    # Here, because nothing else needs cryptography.
    from luthier_artifacts.signatures import read_public_keys, verify

    trusted = read_public_keys(trusted_keys)
    kept = cache.signature(store.uri, manifest.digest) if cache else None
    if kept is not None:
        try:
            return verify(manifest, kept, trusted, store.uri)
        except SignatureError:
            pass
    try:
        signature, _ = store.read(SIGNATURE_NAME)
    except ObjectNotFound:
        raise SignatureError(
            f"{store.uri} is not signed: it has no {SIGNATURE_NAME}; sign the version with `luthier sign`."
        ) from None
    verify(manifest, signature, trusted, store.uri)
    if cache:
        cache.keep_signature(store.uri, manifest.digest, signature)
