"""kopf's side: which objects are watched, the indices that cache them, and the events that wake keys.

`on.event` handlers write nothing and are never retried, so all they do is wake a key of the work queue. kopf runs them
only after every index is filled. All of them are coroutines: kopf calls a plain function in another thread, and neither
the cache nor the queue is made for threads. No finalizers, annotations or status are ever written by kopf: it has no
handler that would.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from luthier_api import GROUP, VERSION
from luthier_operator import names
from luthier_operator.audit import Watched
from luthier_operator.cache import Cache, Kind, Stored, owner_of, stored
from luthier_operator.observed import Key, WorkloadView, workload_view

Wake = Callable[[Key], None]

_RESOURCES: dict[Kind, tuple[str, str, str]] = {
    "FineTuneJob": (GROUP, VERSION, "finetunejobs"),
    "ModelDeployment": (GROUP, VERSION, "modeldeployments"),
    "Job": ("batch", "v1", "jobs"),
    "Pod": ("", "v1", "pods"),
    "RayService": ("ray.io", "v1", "rayservices"),
}
_SELECTORS: dict[Kind, str] = {kind: names.MANAGED_SELECTOR for kind in ("Job", "Pod", "RayService")}
_FOLLOWERS = "followers"
_LARGE: tuple[Kind, ...] = ("FineTuneJob", "Job", "Pod")
# In the version that the cluster prefers.
_WORKLOADS = (names.KUEUE, "workloads")
_WORKLOAD = "Workload"


def register(registry: kopf.OperatorRegistry, cache: Cache, wake: Wake) -> None:
    """Register the indices and the handlers that wake."""
    for kind, resource in _RESOURCES.items():
        same: set[str] = set()
        _index(registry, kind, resource, cache, same)
        _watch(registry, kind, resource, cache, wake, same)
    _index_followers(registry)
    _watch_workloads(registry, cache, wake)


def configure(settings: kopf.OperatorSettings) -> None:
    """Keep kopf to watching: unlabelled Jobs and Pods stay off the wire, and nothing of it is written anywhere."""
    for kind, selector in _SELECTORS.items():
        settings.watching.label_selectors[_RESOURCES[kind]] = selector
    settings.watching.label_selectors[_WORKLOADS] = names.QUEUED_JOB
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = settings.watching.connect_timeout = 10
    settings.process.ultimate_exiting_timeout = 20
    settings.persistence.diffbase_storage = _Changeless()
    # A worker per object holds on to the last event for as long.
    settings.queueing.idle_timeout = 0.5


class _Changeless(kopf.DiffBaseStorage):
    """kopf copies every object that it is told of, to find what a handler of changes would be called for. None is."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise NotImplementedError("there is no handler of changes")


def indices_of(kwargs: Mapping[str, Any]) -> Mapping[Kind, Mapping[Key, Any]]:
    """Return kopf's indices, which it passes to every handler by name."""
    return {kind: kwargs[kind] for kind in _RESOURCES}


def workloads_of(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return kopf's index of Kueue's Workloads."""
    index: Mapping[str, Any] = kwargs[_WORKLOAD]
    return index


def watched(namespaces: Sequence[str]) -> list[Watched]:
    """Return what kopf watches, and the paths that it uses."""
    result = []
    for kind, (group, version, plural) in _RESOURCES.items():
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        for part in [f"/namespaces/{namespace}" for namespace in namespaces] or [""]:
            result.append(Watched(kind, f"{root}{part}/{plural}", _SELECTORS.get(kind, "")))
    return result


def _index(
    registry: kopf.OperatorRegistry, kind: Kind, resource: tuple[str, str, str], cache: Cache, same: set[str]
) -> None:
    @kopf.index(*resource, id=kind, registry=registry)
    async def index(body: kopf.Body, **_: Any) -> dict[Key, Stored] | None:
        raw = dict(body)
        key = owner_of(kind, raw)
        if key is None:
            return None
        item = stored(kind, raw)
        if cache.tells_nothing_new(kind, key, item):
            same.add(raw["metadata"]["uid"])
        if kind in _LARGE:
            _let_go(raw)
        return {key: item}


def _let_go(raw: Mapping[str, Any]) -> None:
    """Empty what was parsed. kopf keeps each object until all are indexed; thousands of pods would take a gigabyte."""
    raw["metadata"].pop("managedFields", None)
    for part in ("spec", "status"):
        raw.get(part, {}).clear()


def _watch(
    registry: kopf.OperatorRegistry,
    kind: Kind,
    resource: tuple[str, str, str],
    cache: Cache,
    wake: Wake,
    same: set[str],
) -> None:
    @kopf.on.event(*resource, id=f"wake-{kind}", registry=registry)
    async def woken(event: kopf.RawEvent, **kwargs: Any) -> None:
        raw = event["object"]
        cache.caught_up(kind, raw, deleted=event["type"] == "DELETED")
        key = owner_of(kind, raw)
        unchanged = raw["metadata"]["uid"] in same
        same.discard(raw["metadata"]["uid"])
        if key is None or (unchanged and event["type"] == "MODIFIED"):
            return
        wake(key)
        if kind == "FineTuneJob":
            for follower in kwargs[_FOLLOWERS].get(key, ()):
                wake(Key("ModelDeployment", key.namespace, follower))
        elif kind == "ModelDeployment" and (followed := raw["spec"].get("model", {}).get("fineTuneJobRef")):
            # It may hold back an old version from being removed, or no longer do so.
            wake(Key("FineTuneJob", key.namespace, followed["name"]))


def _index_followers(registry: kopf.OperatorRegistry) -> None:
    @kopf.index(*_RESOURCES["ModelDeployment"], id=_FOLLOWERS, registry=registry)
    async def followers(body: kopf.Body, **_: Any) -> dict[Key, str] | None:
        """Map a FineTuneJob to the ModelDeployments that serve what it makes."""
        metadata, model = body["metadata"], body["spec"].get("model", {})
        reference = model.get("fineTuneJobRef")
        if not reference:
            return None
        return {Key("FineTuneJob", metadata["namespace"], reference["name"]): metadata["name"]}


def _watch_workloads(registry: kopf.OperatorRegistry, cache: Cache, wake: Wake) -> None:
    @kopf.index(*_WORKLOADS, id=_WORKLOAD, registry=registry)
    async def index(body: kopf.Body, **_: Any) -> dict[str, WorkloadView]:
        view = workload_view(dict(body))
        return {view.job_uid: view}

    @kopf.on.event(*_WORKLOADS, id=f"wake-{_WORKLOAD}", registry=registry)
    async def woken(event: kopf.RawEvent, **_: Any) -> None:
        uid = event["object"]["metadata"]["labels"][names.QUEUED_JOB]
        if key := cache.queued(uid, deleted=event["type"] == "DELETED"):
            wake(key)
