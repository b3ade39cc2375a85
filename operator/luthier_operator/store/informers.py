"""Informers: what is watched, what the store keeps of each event, and whom it wakes.

An event only wakes, and only if a decision would see something new: half of all events tell nothing new. What is new is
woken at once; what changes, a moment later, together with what changes beside it. `handlers` hands kopf's events in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luthier_api import GROUP, VERSION
from luthier_operator.model import names
from luthier_operator.model.routes import GATEWAY_API
from luthier_operator.model.views import Key, Raw, ResourceKind
from luthier_operator.store.index import Index
from luthier_operator.store.store import Change, Kind, Store

Wake = Callable[[Key], None]


@dataclass(frozen=True)
class Watched:
    """A kind of object that is watched."""

    group: str
    """Empty for the core group."""
    version: str | None
    """None for the one that the cluster prefers."""
    plural: str
    selector: str = ""
    """Label selector: what does not match stays off the wire."""
    optional: bool = False
    """Whether the kind may be missing from the cluster."""

    def paths(self, version: str, namespaces: Sequence[str]) -> list[str]:
        """Return the paths of the lists, in these namespaces or, without any, in all."""
        root = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        return [f"{root}/{part}{self.plural}" for part in [f"namespaces/{each}/" for each in namespaces] or [""]]


WATCHED: dict[Kind, Watched] = {
    "FineTuneJob": Watched(GROUP, VERSION, "finetunejobs"),
    "ModelDeployment": Watched(GROUP, VERSION, "modeldeployments"),
    # Absent until the CRDs of a release before 0.3 are upgraded.
    "BatchPrediction": Watched(GROUP, VERSION, "batchpredictions", optional=True),
    "Job": Watched("batch", "v1", "jobs", names.MANAGED_SELECTOR),
    "Pod": Watched("", "v1", "pods", names.MANAGED_SELECTOR),
    "RayService": Watched("ray.io", "v1", "rayservices", names.MANAGED_SELECTOR, optional=True),
    "Workload": Watched(names.KUEUE, None, "workloads", names.QUEUED_JOB, optional=True),
    "HTTPRoute": Watched(GATEWAY_API, "v1", "httproutes", names.MANAGED_SELECTOR, optional=True),
    "Ingress": Watched("networking.k8s.io", "v1", "ingresses", names.MANAGED_SELECTOR),
}


class Informers:
    """Keep in the store what is told, and wake whom it concerns."""

    def __init__(self, store: Store, wake: Wake, wake_soon: Wake) -> None:
        """Nothing was told yet."""
        self._store, self._wake, self._wake_soon = store, wake, wake_soon
        self._followers: Index[Key, Key] = Index()
        """{FineTuneJob: the resources that serve, or predict with, what it makes}."""

    def finetunejob(self, raw: Raw, *, deleted: bool) -> None:
        """Wake the resource, and those that follow it."""
        if change := self._take("FineTuneJob", raw, deleted=deleted):
            self._wake_owner(change)
            self._wake_followers(change.owner)

    def follower(self, kind: ResourceKind, raw: Raw, *, deleted: bool) -> None:
        """Wake the resource, and the FineTuneJob that it follows: it may keep an old version from being removed."""
        uid, change = raw["metadata"]["uid"], self._take(kind, raw, deleted=deleted)
        reference = raw["spec"].get("model", {}).get("fineTuneJobRef")
        followed = Key("FineTuneJob", raw["metadata"]["namespace"], reference["name"]) if reference else None
        before = self._followers.key_of(uid)
        if followed and not deleted:
            self._followers.put(uid, followed, Key(kind, followed.namespace, raw["metadata"]["name"]))
        else:
            self._followers.drop(uid)
        if change:
            self._wake_owner(change)
            for each in {before, followed} - {None}:
                assert each
                self._wake_soon(each)

    def child(self, kind: Kind, raw: Raw, *, deleted: bool) -> None:
        """Wake the resource that a Job, pod, RayService or way in from outside is for."""
        before = self._store.watched_owner(kind, raw["metadata"]["uid"])
        if change := self._take(kind, raw, deleted=deleted):
            self._wake_owner(change)
            if isinstance(before, Key) and before != change.owner:
                self._wake_soon(before)

    def workload(self, raw: Raw, *, deleted: bool) -> None:
        """Wake the resource whose Job waits in a queue."""
        if (change := self._take("Workload", raw, deleted=deleted)) and isinstance(change.owner, str):
            owner = self._store.owner("Job", change.owner)
            if isinstance(owner, Key):
                self._wake_soon(owner)

    def vanished(self, kind: Kind, uid: str, version: int) -> None:
        """Forget an object that the cluster no longer has, of which no watch told."""
        owner = self._store.vanished(kind, uid, version)
        self._followers.drop(uid)
        if isinstance(owner, str):
            owner = self._store.owner("Job", owner)
        if isinstance(owner, Key):
            self._wake_soon(owner)
            self._wake_followers(owner)

    def _take(self, kind: Kind, raw: Raw, *, deleted: bool) -> Change | None:
        """Keep an event; return what it changed, if a decision would see that."""
        if deleted:
            metadata = raw["metadata"]
            return self._store.drop(kind, metadata["uid"], int(metadata["resourceVersion"]))
        change = self._store.put(kind, raw)
        return None if change is None or change.seen_before else change

    def _wake_owner(self, change: Change) -> None:
        assert isinstance(change.owner, Key)
        (self._wake if change.is_new else self._wake_soon)(change.owner)

    def _wake_followers(self, owner: Key | str) -> None:
        if isinstance(owner, Key) and owner.kind == "FineTuneJob":
            for follower in self._followers.get(owner, ()):
                self._wake_soon(follower)
