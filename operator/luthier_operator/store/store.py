"""What the operator knows of the cluster: what the watches told, and on top of it what its own writes returned.

A reconcile must see what the one before it wrote, although the watch may deliver it later. So the object that a write
returns is kept until the watch has caught up with it. All of it is a cache: each start fills it anew before the first
reconcile.
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from luthier_api.reasons import ConditionType
from luthier_operator.model import names
from luthier_operator.model.parse import job_view, pod_view, rayservice_view, workload_view
from luthier_operator.model.routes import ROUTE_KINDS, RouteView, httproute_view, ingress_view
from luthier_operator.model.views import (
    RESOURCE_KINDS,
    JobView,
    Key,
    PodView,
    Raw,
    RayServiceView,
    ResourceKind,
    WorkloadView,
)
from luthier_operator.store.index import Index

# A write that was under way when its object went is answered long before so many more have gone.
_GONE_REMEMBERED = 4096

Kind = Literal[
    "FineTuneJob", "ModelDeployment", "BatchPrediction", "Job", "Pod", "RayService", "Workload", "HTTPRoute", "Ingress"
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the store."""

    namespace: str
    name: str
    uid: str
    version: int
    value: Any
    """What decisions need of it, parsed; of the resources the JSON text."""
    phase: str = ""
    """Of the resources, the phase that the status shows."""
    stalled: str = ""
    """Of the resources, the reason of the condition `Stalled`, while that is true."""
    unavailable: bool = False
    """Of a ModelDeployment, whether it answers no request although its server is there, or should be."""


def stored(kind: Kind, raw: Raw) -> Stored:
    """Return what is kept of an object."""
    metadata = raw["metadata"]
    value = _PARSERS[kind](raw) if kind in _PARSERS else _text(raw)
    version = int(metadata["resourceVersion"])
    found = Stored(metadata["namespace"], metadata["name"], metadata["uid"], version, value)
    return found if kind in _PARSERS else _with_state(found, raw.get("status") or {})


_NO_SERVER_YET = ("Waiting", "Suspended")


def _with_state(item: Stored, status: Raw) -> Stored:
    """Return a resource with what its status says, for the metrics."""
    phase = sys.intern(status.get("phase", ""))
    conditions = {each.get("type"): each for each in status.get("conditions") or []}
    stalled = conditions.get(ConditionType.STALLED, {})
    available = conditions.get(ConditionType.AVAILABLE, {})
    return replace(
        item,
        phase=phase,
        stalled=sys.intern(stalled.get("reason", "")) if stalled.get("status") == "True" else "",
        unavailable=available.get("status") == "False" and phase not in _NO_SERVER_YET,
    )


def owner_of(kind: Kind, raw: Raw) -> Key | str | None:
    """Return what an object is for: itself, the resource that its labels name, or of a Workload the uid of the Job."""
    metadata = raw["metadata"]
    if kind == "FineTuneJob" or kind == "ModelDeployment" or kind == "BatchPrediction":
        return Key(kind, metadata["namespace"], metadata["name"])
    labels = metadata.get("labels", {})
    if kind == "Workload":
        uid: str | None = labels.get(names.QUEUED_JOB)
        return uid
    if name := labels.get(names.FINETUNEJOB):
        return Key("FineTuneJob", metadata["namespace"], name)
    if name := labels.get(names.MODELDEPLOYMENT):
        return Key("ModelDeployment", metadata["namespace"], name)
    if name := labels.get(names.BATCHPREDICTION):
        return Key("BatchPrediction", metadata["namespace"], name)
    return None


def _text(raw: Raw) -> bytes:
    """Return a resource as compact JSON: a tenth of what dicts take, and what the models parse fastest."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    return json.dumps({**raw, "metadata": metadata}, separators=(",", ":")).encode()


_PARSERS = {
    "Job": job_view,
    "Pod": pod_view,
    "RayService": rayservice_view,
    "Workload": workload_view,
    "HTTPRoute": httproute_view,
    "Ingress": ingress_view,
}


@dataclass(frozen=True)
class Change:
    """What an event changed in the store."""

    owner: Key | str
    is_new: bool = False
    """Whether it is one of the resources, and was not known before."""
    seen_before: bool = False
    """Whether a decision would see nothing that the watch had not told before."""


class Store:
    """Take in what is told and what was written; read what is known."""

    def __init__(self) -> None:
        """Start empty."""
        self._watched: dict[Kind, Index[Key | str, Stored]] = {kind: Index() for kind in KINDS}
        self._written: dict[tuple[Kind, Key | str], dict[str, Stored]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    # What the watches tell

    def put(self, kind: Kind, raw: Raw) -> Change | None:
        """Take an object as the watch tells it; None if it is for nobody."""
        owner = owner_of(kind, raw)
        if owner is None:  # its labels name nobody any more
            return self.drop(kind, raw["metadata"]["uid"], int(raw["metadata"]["resourceVersion"]))
        item, index = stored(kind, raw), self._watched[kind]
        before = next((other for other in index.get(owner, ()) if other.name == item.name), None)
        is_new = owner not in index and kind in RESOURCE_KINDS
        change = Change(owner, is_new, before is not None and before.value == item.value)
        index.put(item.uid, owner, item)
        self._drop_written(kind, owner, item.name, item.version)
        return change

    def drop(self, kind: Kind, uid: str, version: int) -> Change | None:
        """Forget an object that was gone at a version, and what was written of it; None if it was not known."""
        self._gone[uid] = None
        if len(self._gone) > _GONE_REMEMBERED:
            self._gone.popitem(last=False)
        dropped = self._watched[kind].drop(uid)
        if dropped is None:
            return None
        owner, item = dropped
        self._drop_written(kind, owner, item.name, version)  # of a later version is another that has the name by now
        return Change(owner)

    def vanished(self, kind: Kind, uid: str, version: int) -> Key | str | None:
        """Forget an object that the cluster no longer has, told or written; return what it was for."""
        if change := self.drop(kind, uid, version):
            return change.owner
        owner = self.owner(kind, uid)
        if owner is not None:
            for item in [each for each in self._written[kind, owner].values() if each.uid == uid]:
                self._drop_written(kind, owner, item.name, version)
        return owner

    # What we write

    def wrote(self, kind: Kind, raw: Raw | None) -> None:
        """Remember what a write returned. A deletion that is complete returns no object."""
        if raw is None or raw.get("kind") == "Status" or (owner := owner_of(kind, raw)) is None:
            return
        if raw["metadata"]["uid"] in self._gone:
            return  # it went before the answer came, and nothing would tell of that again
        item = stored(kind, raw)
        known = any(other.name == item.name for other in self._watched[kind].get(owner, ()))
        if "deletionTimestamp" in raw["metadata"] and not known:
            return  # the watch has told of the end already
        self._written.setdefault((kind, owner), {})[item.name] = item

    # What is known

    def read(self, kind: Kind, owner: Key | str) -> list[Stored]:
        """Return the newest known state of all objects of a kind that are for one owner."""
        newest: dict[str, Stored] = {}
        for item in (*self._watched[kind].get(owner, ()), *self._written.get((kind, owner), {}).values()):
            if item.name not in newest or newest[item.name].version < item.version:
                newest[item.name] = item
        return list(newest.values())

    def owner(self, kind: Kind, uid: str) -> Key | str | None:
        """Return what an object is for."""
        written = (
            (owner, item) for (of, owner), items in self._written.items() if of == kind for item in items.values()
        )
        return self.watched_owner(kind, uid) or next((owner for owner, item in written if item.uid == uid), None)

    def watched_owner(self, kind: Kind, uid: str) -> Key | str | None:
        """Return what an object is for, if the watch has told of it."""
        return self._watched[kind].key_of(uid)

    def watched(self, kind: Kind, owner: Key) -> bool:
        """Whether the watch has told of any object of a kind for an owner; what was written does not count."""
        return owner in self._watched[kind]

    def count(self, kind: Kind) -> int:
        """Return how many objects of a kind the watch has told of."""
        return self._watched[kind].objects

    def all(self, kind: Kind) -> Iterator[Stored]:
        """Return the newest known state of all objects of a kind."""
        for owner in {*self._watched[kind], *(owner for of, owner in self._written if of == kind)}:
            yield from self.read(kind, owner)

    def phases(self, kind: ResourceKind) -> Iterator[str]:
        """Return the phase of every resource of a kind; those that nobody has looked at are `Pending`."""
        for items in self._watched[kind].values():
            yield from (item.phase or "Pending" for item in items)

    def stalled(self, kind: ResourceKind) -> Iterator[tuple[str, str]]:
        """Return the namespace of every resource of a kind that is stalled, and the reason."""
        for items in self._watched[kind].values():
            yield from ((item.namespace, item.stalled) for item in items if item.stalled)

    def unavailable(self) -> Iterator[str]:
        """Return the namespace of every ModelDeployment that answers no request and should."""
        for items in self._watched["ModelDeployment"].values():
            yield from (item.namespace for item in items if item.unavailable)

    def jobs(self, key: Key) -> list[JobView]:
        """Return the Jobs of a FineTuneJob or a BatchPrediction."""
        return [item.value for item in self.read("Job", key)]

    def pods(self, key: Key) -> list[PodView]:
        """Return the pods of a resource's Jobs, or of a ModelDeployment's server."""
        return [item.value for item in self.read("Pod", key)]

    def rayservice(self, key: Key) -> RayServiceView | None:
        """Return the RayService of a ModelDeployment."""
        return next((item.value for item in self.read("RayService", key)), None)

    def routes(self, key: Key) -> list[RouteView]:
        """Return the ways in from outside of a ModelDeployment."""
        return [item.value for kind in ROUTE_KINDS for item in self.read(kind, key)]

    def workloads(self, jobs: Iterable[JobView]) -> Mapping[str, WorkloadView]:
        """Return {uid of a Job: what Kueue says of it}, for those of these Jobs of which the watch has told."""
        found = {}
        for job in jobs:
            for item in self.read("Workload", job.uid):
                if item.namespace == job.namespace:  # elsewhere, whoever may make Workloads may name any Job
                    found[job.uid] = item.value
        return found

    def _drop_written(self, kind: Kind, owner: Key | str, name: str, version: int) -> None:
        """Forget what was written of an object up to a version."""
        written = self._written.get((kind, owner), {})
        if name in written and written[name].version <= version:
            del written[name]
            if not written:
                del self._written[kind, owner]
