"""Proof that a server honours conditional writes, which everything in `trees` and `publishing` rests on.

Some S3 servers accept If-None-Match and If-Match and ignore them; two trainers would then overwrite each other
without a word. One object is kept for the proof, so that asking again costs two refused requests and nothing is ever
deleted. The same requests show that the bucket exists and that the credentials may write.
"""

from __future__ import annotations

from luthier_artifacts.errors import ConditionalWritesUnsupported, PreconditionFailed
from luthier_artifacts.store import ObjectStore

PROBE_KEY = ".probe"
_CONTENT = b"Luthier writes this object to learn whether the server honours conditional writes.\n"
# The etag of no object: 32 zeros are a well-formed MD5.
_NO_ETAG = "0" * 32


def probe_conditional_writes(store: ObjectStore, folder: str) -> None:
    """Check that the server refuses a write whose condition does not hold.

    Args:
        store: The store to prove.
        folder: Key of a folder that may be written.

    Raises:
        ConditionalWritesUnsupported: if a condition is ignored or not implemented.
        StorageDenied: if the credentials may not write.
        BucketNotFound: if the bucket does not exist.
    """
    key = f"{folder}/{PROBE_KEY}"
    # The first write makes the object when it is not there; the second must be refused.
    if not (_refused(store, key, if_absent=True) or _refused(store, key, if_absent=True)):
        raise _unsupported(store, "If-None-Match")
    if not _refused(store, key, if_match=_NO_ETAG):
        raise _unsupported(store, "If-Match")


def _refused(store: ObjectStore, key: str, *, if_absent: bool = False, if_match: str | None = None) -> bool:
    try:
        store.write(key, _CONTENT, if_absent=if_absent, if_match=if_match)
    except PreconditionFailed:
        return True
    return False


def _unsupported(store: ObjectStore, header: str) -> ConditionalWritesUnsupported:
    return ConditionalWritesUnsupported(
        f"The server behind {store.uri} accepts {header} and ignores it, so two writers could overwrite each other; "
        "use storage that honours conditional writes, or a newer release of this server."
    )
