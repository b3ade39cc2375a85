"""Which certificate authorities are trusted where files come from the web or a hub: the system's, and a caBundle's."""

import os
import ssl
import tempfile
from pathlib import Path

from luthier_artifacts import StorageDenied

# What OpenSSL reads, and so do httpx and the hub's own downloader.
_VARIABLE = "SSL_CERT_FILE"
_PREFIX = "luthier-authorities-"


def trusting(ca_bundle: Path | None) -> ssl.SSLContext:
    """Return what a client is to trust.

    Raises:
        StorageDenied: if the bundle cannot be read.
    """
    # Only runs that read from the web or a hub pay for this import.
    import httpx2

    context: ssl.SSLContext = httpx2.create_ssl_context()
    if ca_bundle is not None:
        try:
            context.load_verify_locations(ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise StorageDenied(f"caBundle {ca_bundle} holds no certificates that can be read: {error}") from error
    return context


def trust_in_this_process(ca_bundle: Path) -> None:
    """Have libraries whose clients are their own trust a bundle besides what they trust.

    Raises:
        StorageDenied: if the bundle cannot be read.
    """
    trusting(ca_bundle)
    usual = os.environ.get(_VARIABLE) or ssl.get_default_verify_paths().cafile
    both = [Path(usual).read_bytes()] if usual and Path(usual).is_file() else []
    added = ca_bundle.read_bytes()
    if both and added in both[0]:
        return
    descriptor, path = tempfile.mkstemp(".pem", _PREFIX)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"\n".join([*both, added]))
    os.environ[_VARIABLE] = path
