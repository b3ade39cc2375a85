"""Downloads a model version, verified, and opens it; or says in one sentence why it cannot.

Files are cached by content, so that a replica that restarts on a node downloads nothing. The registry verifies the
sha256 of every file, downloaded or cached. Only the files that the engine reads are fetched.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from luthier_api.cpus import available_cpus
from luthier_api.documents import RevisionConfig
from luthier_api.reasons import Reason
from luthier_artifacts import (
    BucketNotFound,
    CredentialsExpired,
    IntegrityError,
    InvalidKey,
    InvalidUri,
    Manifest,
    ObjectNotFound,
    StorageConfig,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    download_version,
)
from luthier_serving.compute.engines import needed_files
from luthier_serving.compute.model import LoadTimes, Model, open_model
from luthier_serving.errors import LoadError

CACHE_ENV = "LUTHIER_CACHE"
DEFAULT_CACHE = "/var/cache/luthier"
# Ray Serve gives up on a new application after three failed starts, so an outage of storage is waited out here.
PATIENCE_ENV = "LUTHIER_LOAD_PATIENCE_S"
DEFAULT_PATIENCE_S = 120.0
RETRY_DELAY_S = 3.0
# The kubelet brings a Secret that has changed into a running pod within a minute or two.
MOUNT_DELAY_S = 120.0

logger = logging.getLogger("ray.serve")
Choose = Callable[[list[str]], Collection[str]]

_REASONS: list[tuple[type[StorageError], Reason]] = [
    (IntegrityError, Reason.INTEGRITY_ERROR),
    (StorageDenied, Reason.STORAGE_DENIED),
    (CredentialsExpired, Reason.CREDENTIALS_EXPIRED),
    (BucketNotFound, Reason.BUCKET_NOT_FOUND),
    (ObjectNotFound, Reason.MODEL_NOT_FOUND),
    (InvalidUri, Reason.INVALID_SPEC),
    (StorageUnavailable, Reason.STORAGE_UNAVAILABLE),
]


def load_model(config: RevisionConfig) -> Model:
    """Return the model of a revision, ready to answer.

    Raises:
        LoadError: the artifact cannot be fetched, or the engine cannot load it.
    """
    cpus, began = available_cpus(), time.monotonic()
    # Otherwise tokenizers starts one thread for each core of the node.
    os.environ.setdefault("RAYON_NUM_THREADS", str(cpus))
    cache = cache_folder()
    # In the cache folder, because the files are hard links into the cache; removed once they are loaded.
    with tempfile.TemporaryDirectory(prefix="loading-", dir=cache) as work:
        folder = Path(work) / "model"
        needed = partial(needed_files, config.engine, gpus=config.gpus_per_replica)
        fetch(config, config.model_uri, folder, digest=config.digest, choose=needed)
        fetched = time.monotonic()
        model = open_model(
            folder,
            config.engine,
            version=config.version,
            digest=config.digest,
            gpus=config.gpus_per_replica,
            cpus=cpus,
            max_tokens=config.max_batch_tokens,
        )
    model.times = LoadTimes(fetched - began, time.monotonic() - fetched)
    return model


def cache_folder() -> Path:
    """Return the folder for downloads: $LUTHIER_CACHE; if unset, /var/cache/luthier if writable, or a temporary one.

    Raises:
        LoadError: none of them is writable.
    """
    wanted = os.environ.get(CACHE_ENV)
    for folder in [Path(wanted)] if wanted else [Path(DEFAULT_CACHE), Path(tempfile.gettempdir()) / "luthier-cache"]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise LoadError(
        Reason.CONFIG_ERROR,
        f"The cache folder {wanted or DEFAULT_CACHE} is not writable; set {CACHE_ENV} to one that is.",
    )


def fetch(config: RevisionConfig, uri: str, folder: Path, *, digest: str, choose: Choose) -> Manifest:
    """Download some files of a version, verified; wait for storage that does not answer now.

    Args:
        config: of the revision, which says how storage is reached, and whose signature is asked for.
        uri: folder of the version: the revision's own, or that of an adapter over it.
        folder: written; on the file system of the cache.
        digest: what the manifest must have.
        choose: given the paths of all files, returns those that are wanted.

    Raises:
        LoadError: they cannot be had.
    """
    cache = cache_folder() / "content"
    deadline = time.monotonic() + float(os.environ.get(PATIENCE_ENV, DEFAULT_PATIENCE_S))
    storage = StorageConfig.from_access(config.access)
    keys = Path(config.trusted_keys) if config.trusted_keys else None
    trusted = _read_keys(keys) if keys else None
    while True:
        try:
            return download_version(
                uri, folder, storage, cache=cache, digest=digest, choose=choose, trusted_keys=trusted
            )
        except InvalidKey as error:
            assert keys
            raise _no_keys(keys, str(error)) from error
        except StorageError as error:
            if not _may_pass(error, storage) or time.monotonic() + RETRY_DELAY_S > deadline:
                reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.CRASHED)
                raise LoadError(reason, str(error)) from error
            logger.warning("%s Retrying in %s s.", error, RETRY_DELAY_S)
        time.sleep(RETRY_DELAY_S)


def _read_keys(file: Path) -> str:
    """Return the public keys that versions must be signed with; without them nothing is loaded."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _no_keys(file, "The ConfigMap has no such key, or it is not text.") from error


def _no_keys(file: Path, why: str) -> LoadError:
    return LoadError(
        Reason.CONFIG_ERROR, f"No version can be verified with {file.name} of model.verify.publicKeyRef. {why}"
    )


def _may_pass(error: StorageError, storage: StorageConfig) -> bool:
    """Whether trying again may help: also for keys that were replaced in the Secret, and in this pod not yet."""
    return error.retryable or (isinstance(error, StorageDenied) and storage.keys_age_s > MOUNT_DELAY_S)
