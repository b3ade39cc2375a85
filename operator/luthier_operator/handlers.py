"""kopf's side: which objects are watched, the indices that keep what is told, and the events that wake keys.

`on.event` handlers write nothing and are never retried, so all they do is remember, and wake a key of the work queue.
All of them are coroutines: kopf calls a plain function in another thread, and neither
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
from luthier_operator.index import Beginning, Index
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
# In the version that the cluster prefers.
_WORKLOADS = (names.KUEUE, "workloads")
_WORKLOAD = "Workload"


class Told:
    """What the watches have told."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.objects: dict[Kind, Index[Key, Stored]] = {kind: Index() for kind in _RESOURCES}
        self.followers: Index[Key, str] = Index()
        """{FineTuneJob: names of the ModelDeployments that serve what it makes}."""
        self.workloads: Index[str, WorkloadView] = Index()
        """{uid of a Job: what Kueue says of it}."""
        self.beginning = Beginning()

    def count(self, event: kopf.RawEvent) -> None:
        """Count an object that was there before."""
        if event["type"] is None:
            self.beginning.told()


def register(registry: kopf.OperatorRegistry, cache: Cache, wake: Wake) -> Told:
    """Register the handlers that keep what is told, which the cache reads from then on, and that wake."""
    told = Told()
    cache.attach(told.objects, told.workloads)
    for kind in _RESOURCES:
        _watch(registry, kind, told, cache, wake)
    _watch_workloads(registry, told, cache, wake)
    return told


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


def watched(namespaces: Sequence[str]) -> list[Watched]:
    """Return what kopf watches, and the paths that it uses."""
    result = []
    for kind, (group, version, plural) in _RESOURCES.items():
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        for part in [f"/namespaces/{namespace}" for namespace in namespaces] or [""]:
            result.append(Watched(kind, f"{root}{part}/{plural}", _SELECTORS.get(kind, "")))
    return result


def _watch(registry: kopf.OperatorRegistry, kind: Kind, told: Told, cache: Cache, wake: Wake) -> None:
    index = told.objects[kind]

    @kopf.on.event(*_RESOURCES[kind], id=kind, registry=registry)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        raw, deleted = event["object"], event["type"] == "DELETED"
        told.count(event)
        uid, key, unchanged = raw["metadata"]["uid"], owner_of(kind, raw), False
        if deleted or key is None:
            index.drop(uid)
        else:
            item = stored(kind, raw)
            unchanged = event["type"] == "MODIFIED" and cache.tells_nothing_new(kind, key, item)
            index.put(uid, key, item)
        cache.caught_up(kind, raw, deleted=deleted)
        if key is not None and not unchanged:
            wake(key)
            for other in _others(kind, key, raw, told, deleted=deleted):
                wake(other)
        _let_go(raw)


def _others(kind: Kind, key: Key, raw: Mapping[str, Any], told: Told, *, deleted: bool) -> list[Key]:
    """Return whom an event wakes beside the resource that the object is for."""
    if kind == "FineTuneJob":
        return [Key("ModelDeployment", key.namespace, name) for name in told.followers.get(key, ())]
    reference = raw["spec"].get("model", {}).get("fineTuneJobRef") if kind == "ModelDeployment" else None
    followed = Key("FineTuneJob", key.namespace, reference["name"]) if reference else None
    if followed and not deleted:
        told.followers.put(raw["metadata"]["uid"], followed, key.name)
    elif kind == "ModelDeployment":
        told.followers.drop(raw["metadata"]["uid"])
    # It may hold back an old version from being removed, or no longer do so.
    return [followed] if followed else []


def _let_go(raw: Mapping[str, Any]) -> None:
    """Empty what was parsed: kopf keeps the last event of each object for a while, and thousands of pods are large."""
    raw["metadata"].pop("managedFields", None)
    for part in ("spec", "status"):
        raw.get(part, {}).clear()


def _watch_workloads(registry: kopf.OperatorRegistry, told: Told, cache: Cache, wake: Wake) -> None:
    @kopf.on.event(*_WORKLOADS, id=_WORKLOAD, registry=registry)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        raw, deleted = event["object"], event["type"] == "DELETED"
        view = workload_view(raw)
        if deleted:
            told.workloads.drop(raw["metadata"]["uid"])
        else:
            told.workloads.put(raw["metadata"]["uid"], view.job_uid, view)
        if key := cache.queued(view.job_uid, deleted=deleted):
            wake(key)
