"""Which versions of a FineTuneJob are used: what resources are told to serve or to predict with, and what they do.

Asked only where versions are about to be removed. A resource counts by its spec in the FineTuneJob's own
namespace, and anywhere by its status, which nobody but the operator writes: what it serves stays, and nobody keeps a
version alive by merely naming it from elsewhere. A BatchPrediction that has ended needs its version no more.
They are read raw, as they may be of another release.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

from luthier_api import API_VERSION
from luthier_api.finetunejob import FineTuneJobStatus
from luthier_operator.kube import ApiNotInstalled, KubeClient
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.views import Meta, Raw
from luthier_operator.store.store import Kind, Store

_USERS: tuple[Kind, ...] = ("ModelDeployment", "BatchPrediction")
_ENDS = ("Succeeded", "Failed")


class VersionsInUse:
    """Asks the store, or the API server itself, which versions are served."""

    def __init__(self, kube: KubeClient, store: Store) -> None:
        """Read from there."""
        self._kube, self._store = kube, store

    def known(self, resource: FineTuneJobResource) -> frozenset[str]:
        """Return which versions of a resource are served, as far as the watch has delivered."""
        if not matters(resource):
            return frozenset()
        return versions_in_use(resource, self._known(resource, here=True))

    async def live(self, resource: FineTuneJobResource) -> frozenset[str]:
        """Return it as the API server says for the resource's namespace, and for others as the watch has delivered."""
        if not matters(resource):
            return frozenset()
        here = [raw for kind in _USERS for raw in await self._list(kind, resource.meta.namespace)]
        return versions_in_use(resource, [*here, *self._known(resource, here=False)])

    async def _list(self, kind: Kind, namespace: str) -> Sequence[Raw]:
        try:
            return await self._kube.list_by_label(API_VERSION, kind, namespace, "")
        except ApiNotInstalled:
            return []  # a release before its CRD was there

    def _known(self, resource: FineTuneJobResource, *, here: bool) -> list[Raw]:
        """Return the resources of the namespace that use versions, if wanted, and those elsewhere that name it."""
        place = _place(resource).encode()
        return [
            json.loads(item.value)
            for kind in _USERS
            for item in self._store.all(kind)
            if (here if item.namespace == resource.meta.namespace else place in item.value)
        ]


def matters(resource: FineTuneJobResource) -> bool:
    """Whether a plan for this resource may remove versions."""
    if resource.meta.deleting:
        return resource.meta.held
    limit, versions = resource.spec.version_history_limit, resource.status.versions
    # A plan that publishes a version may look for what is over the limit at once: one more than the status has now.
    return limit is not None and (len(versions) >= limit or any(version.removing for version in versions))


def versions_in_use(resource: FineTuneJobResource, users: Iterable[Raw]) -> frozenset[str]:
    """Return the versions of a FineTuneJob that these resources use or are told to use."""
    known = {version.uri.rstrip("/"): version.version for version in resource.status.versions}
    root = _place(resource)
    found = set()
    for raw in users:
        if _has_ended(raw):
            continue
        for uri in _uris(resource.meta, raw):
            if uri in known or uri.startswith(root):
                found.add(known.get(uri, uri.removeprefix(root)))
        if raw["metadata"]["namespace"] == resource.meta.namespace:
            found |= set(_followed(resource.meta.name, resource.status, raw))
    return frozenset(found)


def _place(resource: FineTuneJobResource) -> str:
    return f"{resource.spec.output.uri.rstrip('/')}/{resource.spec.output.name}/versions/"


def _has_ended(raw: Raw) -> bool:
    """Whether it is a BatchPrediction that has ended, and of the spec that it has now."""
    status = raw.get("status") or {}
    known = status.get("observedGeneration") == raw["metadata"].get("generation")
    return known and (status.get("run") or {}).get("state") in _ENDS


def _uris(meta: Meta, raw: Raw) -> Iterator[str]:
    yield str((raw.get("status") or {}).get("modelUri", "")).rstrip("/")
    for revision in (raw.get("status") or {}).get("revisions") or []:
        yield str(revision.get("uri", "")).rstrip("/")
    uri = raw["spec"].get("model", {}).get("uri")
    if uri and raw["metadata"]["namespace"] == meta.namespace:
        yield str(uri).rstrip("/")


def _followed(name: str, status: FineTuneJobStatus, raw: Raw) -> Iterator[str]:
    """Return what a resource is told to use that names this FineTuneJob."""
    reference = raw["spec"].get("model", {}).get("fineTuneJobRef") or {}
    if reference.get("name") != name:
        return
    if version := reference.get("version"):
        yield str(version)
    else:
        yield from [version.version for version in status.versions if version.promotable and not version.removing][:1]
