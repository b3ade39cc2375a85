"""From a URI to the store behind it: the one place that knows both implementations."""

from __future__ import annotations

from luthier_artifacts.config import StorageConfig
from luthier_artifacts.file_store import FileStore
from luthier_artifacts.store import ObjectStore
from luthier_artifacts.uri import Location, parse_uri


def open_store(uri: str, config: StorageConfig | None = None) -> ObjectStore:
    """Return the store rooted at s3://bucket/prefix, pvc://claim/folder or file:///folder; nothing is asked of it yet.

    Raises:
        InvalidUri: if the URI is none of them.
    """
    return open_location(parse_uri(uri), config)


def open_location(location: Location, config: StorageConfig | None = None) -> ObjectStore:
    """Return the store rooted at a parsed URI."""
    config = config or StorageConfig()
    if location.folder is not None:
        return FileStore(location.folder, config.concurrency, uri=location.uri)
    # Here, because a folder needs no boto3.
    from luthier_artifacts.s3 import S3Store

    return S3Store(location, config)
