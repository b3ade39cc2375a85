"""Turns what the registry says of a version into the document that the operator reads."""

from luthier_api.base import decimal_text
from luthier_api.documents import Published
from luthier_artifacts import PublishedVersion

_MESSAGE_CHARACTERS = 600


def as_published(version: PublishedVersion, run_key: str) -> Published:
    """Return the result document of a version that was published or found."""
    metadata = version.manifest
    return Published(
        run_key=run_key,
        version=version.version,
        uri=version.uri,
        digest=version.digest,
        size_bytes=version.size_bytes,
        metrics={name: decimal_text(value) for name, value in metadata.metrics.items()},
        promotable=metadata.promotable,
        message=" ".join(metadata.gate_messages)[:_MESSAGE_CHARACTERS] or None,
        reused=version.reused,
    )
