"""What the watches tell: which objects are watched, what is kept of them, and whom each event wakes.

An event only wakes, and only if it tells of something that a decision looks at: half of them do not.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from luthier_api import GROUP, VERSION
from luthier_operator.kube import Cluster, Listener, Watch, Watched
from luthier_operator.model import names
from luthier_operator.model.parse import workload_view
from luthier_operator.model.views import Key, Raw, WorkloadView
from luthier_operator.store.index import Index
from luthier_operator.store.store import Cache, Kind, Stored, owner_of, stored

Wake = Callable[[Key], None]

_OBJECTS: dict[Kind, Watched] = {
    "FineTuneJob": Watched(GROUP, VERSION, "finetunejobs"),
    "ModelDeployment": Watched(GROUP, VERSION, "modeldeployments"),
    "Job": Watched("batch", "v1", "jobs", names.MANAGED_SELECTOR),
    "Pod": Watched("", "v1", "pods", names.MANAGED_SELECTOR),
    "RayService": Watched("ray.io", "v1", "rayservices", names.MANAGED_SELECTOR, optional=True),
}
_WORKLOADS = Watched(names.KUEUE, None, "workloads", names.QUEUED_JOB, optional=True)


class Told:
    """What the watches have told, which the cache reads."""

    def __init__(self, cache: Cache, wake: Wake, wake_soon: Wake) -> None:
        """Nothing yet. What is new is woken at once; what changes soon, together with what changes beside it."""
        self.cache, self.wake, self.wake_soon = cache, wake, wake_soon
        self.objects: dict[Kind, Index[Key, Stored]] = {kind: Index() for kind in _OBJECTS}
        self.followers: Index[Key, str] = Index()
        """{FineTuneJob: names of the ModelDeployments that serve what it makes}."""
        self.workloads: Index[str, WorkloadView] = Index()
        """{uid of a Job: what Kueue says of it}."""
        cache.attach(self.objects, self.workloads)

    def watches(self, cluster: Cluster, namespaces: Sequence[str], absent_s: float) -> list[tuple[Kind | None, Watch]]:
        """Return what is to be watched, in these namespaces or in all, each with its kind in the cache, if it has one.

        Args:
            cluster: where.
            namespaces: none for all.
            absent_s: how often to look for a kind that is not installed.
        """
        listeners: list[tuple[Kind | None, Watched, Listener]] = [
            *((kind, watched, Objects(kind, self)) for kind, watched in _OBJECTS.items()),
            (None, _WORKLOADS, Workloads(self)),
        ]
        return [
            (kind, Watch(cluster, replace(watched, namespace=namespace), listener, absent_s=absent_s))
            for kind, watched, listener in listeners
            for namespace in (namespaces or (None,))
        ]


class Objects:
    """Listens for one kind of object that the cache keeps."""

    def __init__(self, kind: Kind, told: Told) -> None:
        """Keep there what is told."""
        self._kind, self._told = kind, told
        self._index, self._cache = told.objects[kind], told.cache

    def put(self, raw: Raw) -> None:
        """Take an object as it is now."""
        uid, key = raw["metadata"]["uid"], owner_of(self._kind, raw)
        if key is None:  # its labels name nobody any more
            return self.drop(uid, int(raw["metadata"]["resourceVersion"]))
        item, is_new = stored(self._kind, raw), key not in self._index
        tells = not self._cache.tells_nothing_new(self._kind, key, item)
        self._index.put(uid, key, item)
        self._cache.caught_up(self._kind, key, item)
        if self._kind == "ModelDeployment":
            self._follow(uid, key, raw)
        if tells:
            self._wake(key, uid, is_new=is_new and key.kind == self._kind)

    def drop(self, uid: str, version: int) -> None:
        """Forget an object that was gone at a version."""
        dropped = self._index.drop(uid)
        self._cache.went(self._kind, uid, version, dropped)
        if dropped:
            self._wake(dropped[0], uid)
        if self._kind == "ModelDeployment":
            self._told.followers.drop(uid)

    def listed(self, namespace: str | None, version: int, names: Collection[tuple[str, str]]) -> None:
        """Forget what was written, and is not there."""
        for key in self._cache.listed(self._kind, namespace, version, names):
            self._told.wake_soon(key)

    def _follow(self, uid: str, key: Key, raw: Raw) -> None:
        reference = raw["spec"].get("model", {}).get("fineTuneJobRef")
        if reference:
            self._told.followers.put(uid, Key("FineTuneJob", key.namespace, reference["name"]), key.name)
        else:
            self._told.followers.drop(uid)

    def _wake(self, key: Key, uid: str, *, is_new: bool = False) -> None:
        (self._told.wake if is_new else self._told.wake_soon)(key)
        if self._kind == "FineTuneJob":
            for name in self._told.followers.get(key, ()):
                self._told.wake_soon(Key("ModelDeployment", key.namespace, name))
        elif self._kind == "ModelDeployment" and (followed := self._told.followers.key_of(uid)):
            self._told.wake_soon(followed)  # it may hold back an old version from being removed, or no longer do so


class Workloads:
    """Listens for Kueue's Workloads."""

    def __init__(self, told: Told) -> None:
        """Keep there what is told."""
        self._told = told

    def put(self, raw: Raw) -> None:
        """Take a Workload as it is now."""
        view = workload_view(raw)
        self._told.workloads.put(raw["metadata"]["uid"], view.job_uid, view)
        if key := self._told.cache.queued(view.job_uid):
            self._told.wake_soon(key)

    def drop(self, uid: str, version: int) -> None:
        """Forget a Workload that is gone."""
        dropped = self._told.workloads.drop(uid)
        if dropped and (key := self._told.cache.queued(dropped[0], deleted=True)):
            self._told.wake_soon(key)

    def listed(self, namespace: str | None, version: int, names: Collection[tuple[str, str]]) -> None:
        """Nothing is written here."""
