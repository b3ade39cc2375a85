"""S3 as it looks from here, with the user's own keys; what the pods may do is for their Secret to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from luthier.doctor.rows import Level, Row, ok
from luthier.errors import Denied, LuthierError, NotFound, Unreachable
from luthier.storage import Place, told
from luthier_artifacts import ConditionalWritesUnsupported

_FIXES: dict[type[LuthierError], str] = {
    Denied: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; docs/storage.md#what-the-keys-must-allow",
    NotFound: "create the bucket, or correct output.uri",
    Unreachable: "forward the port of storage and set AWS_ENDPOINT_URL, or check output.endpoint",
}


def storage_rows(places: Iterable[Place]) -> Iterator[Row]:
    """Return a row for each place in which versions lie."""
    seen: set[tuple[str, str]] = set()
    for place in places:
        if (place.uri, place.name) not in seen:
            seen.add((place.uri, place.name))
            yield _proved(place)


def _proved(place: Place) -> Row:
    check = f"S3 {place.uri.rstrip('/')}/{place.name}"
    try:
        registry = place.registry
        with told():
            registry.probe_conditional_writes()
            count = len(registry.list_versions())
    except LuthierError as error:
        if isinstance(error.__cause__, ConditionalWritesUnsupported):
            return Row(check, Level.FAIL, str(error), "docs/storage.md#which-servers-work")
        # From outside of a cluster its storage is often not reached; that says nothing of the pods.
        level = Level.WARN if isinstance(error, Unreachable) else Level.FAIL
        return Row(check, level, str(error), _FIXES.get(type(error), ""))
    return ok(check, f"may be read and written, honours conditional writes, holds {count} versions")
