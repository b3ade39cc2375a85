"""S3 as it looks from here, with the user's own keys; what the pods may do is for their Secret to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from luthier.doctor.rows import Level, Row, ok
from luthier.errors import Denied, LuthierError, NotFound, Unreachable
from luthier.kinds import Raw
from luthier.storage import Place, config_of, told
from luthier_api.batchprediction import RUNS_FOLDER
from luthier_artifacts import ConditionalWritesUnsupported, open_store
from luthier_artifacts.probe import probe_conditional_writes

_FIXES: dict[type[LuthierError], str] = {
    Denied: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; docs/storage.md#what-the-keys-must-allow",
    NotFound: "create the bucket, or correct output.uri",
    Unreachable: "forward the port of storage and set AWS_ENDPOINT_URL, or check output.endpoint",
}


def storage_rows(places: Iterable[Place], outputs: Iterable[Raw] = ()) -> Iterator[Row]:
    """Return a row for each place in which versions lie, and for each `output` of predictions."""
    checks = {f"S3 {place.uri.rstrip('/')}/{place.name}": partial(_versions, place) for place in places}
    checks |= {f"S3 {output['uri'].rstrip('/')}": partial(_predictions, output) for output in outputs}
    for check, prove in checks.items():
        yield _proved(check, prove)


def _versions(place: Place) -> str:
    registry = place.registry
    with told():
        registry.probe_conditional_writes()
        return f", holds {len(registry.list_versions())} versions"


def _predictions(output: Raw) -> str:
    """Prove it where each run does."""
    with told():
        probe_conditional_writes(open_store(output["uri"], config_of(output)), RUNS_FOLDER)
        return ""


def _proved(check: str, prove: Callable[[], str]) -> Row:
    try:
        held = prove()
    except LuthierError as error:
        if isinstance(error.__cause__, ConditionalWritesUnsupported):
            return Row(check, Level.FAIL, str(error), "docs/storage.md#which-servers-work")
        # From outside of a cluster its storage is often not reached; that says nothing of the pods.
        level = Level.WARN if isinstance(error, Unreachable) else Level.FAIL
        return Row(check, level, str(error), _FIXES.get(type(error), ""))
    return ok(check, f"may be read and written, honours conditional writes{held}")
