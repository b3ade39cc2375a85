"""What the operator knows of the cluster: the watch's indices, and on top of them what its own writes returned.

A reconcile must see what the one before it wrote, although the watch may deliver it later. So the object that a write
returns is kept until the watch has caught up with it. All of it is a cache: after a restart it is filled anew before
the first reconcile.
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from luthier_operator.model import names
from luthier_operator.model.parse import job_view, pod_view, rayservice_view
from luthier_operator.model.views import JobView, Key, PodView, Raw, RayServiceView, WorkloadView

# A write that was under way when its object went is answered long before so many more have gone.
_GONE_REMEMBERED = 4096

Kind = Literal["FineTuneJob", "ModelDeployment", "Job", "Pod", "RayService"]


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the cache: parsed to what decisions need, or for the two resources the JSON text."""

    name: str
    version: int
    value: Any
    phase: str = ""
    """Of one of the two resources, the phase that its status shows."""


def stored(kind: Kind, raw: Raw) -> Stored:
    """Return what is kept of an object."""
    metadata = raw["metadata"]
    value = _PARSERS[kind](raw) if kind in _PARSERS else _text(raw)
    phase = (raw.get("status") or {}).get("phase", "") if kind in ("FineTuneJob", "ModelDeployment") else ""
    return Stored(metadata["name"], int(metadata["resourceVersion"]), value, sys.intern(phase))


def owner_of(kind: Kind, raw: Raw) -> Key | None:
    """Return which resource an object is for: itself, or the one that its labels name."""
    metadata = raw["metadata"]
    if kind in ("FineTuneJob", "ModelDeployment"):
        return Key(kind, metadata["namespace"], metadata["name"])
    labels = metadata.get("labels", {})
    if name := labels.get(names.FINETUNEJOB):
        return Key("FineTuneJob", metadata["namespace"], name)
    if name := labels.get(names.MODELDEPLOYMENT):
        return Key("ModelDeployment", metadata["namespace"], name)
    return None


def _text(raw: Raw) -> bytes:
    """Return a resource as compact JSON: a tenth of what dicts take, and what the models parse fastest."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    return json.dumps({**raw, "metadata": metadata}, separators=(",", ":")).encode()


_PARSERS = {"Job": job_view, "Pod": pod_view, "RayService": rayservice_view}


class Cache:
    """Read what is known; remember what was written."""

    def __init__(self) -> None:
        """Start empty; `attach` gives it the indices."""
        self._indices: Mapping[Kind, Mapping[Key, Iterable[Stored]]] = {}
        self._written: dict[tuple[Kind, Key], dict[str, Stored]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._workloads: Mapping[str, Iterable[WorkloadView]] = {}
        self._queued: dict[str, Key] = {}

    def attach(
        self,
        indices: Mapping[Kind, Mapping[Key, Iterable[Stored]]],
        workloads: Mapping[str, Iterable[WorkloadView]],
    ) -> None:
        """Read from these indices from now on; that of Kueue's Workloads is by the uid of the Job."""
        self._indices, self._workloads = indices, workloads

    def read(self, kind: Kind, key: Key) -> list[Stored]:
        """Return the newest known state of all objects of a kind that are for one resource."""
        newest: dict[str, Stored] = {}
        for item in (*self._told(kind, key), *self._written.get((kind, key), {}).values()):
            if item.name not in newest or newest[item.name].version < item.version:
                newest[item.name] = item
        return list(newest.values())

    def told(self, kind: Kind, key: Key) -> bool:
        """Tell whether the watch has delivered any object of a kind for a resource; what was written does not count."""
        return bool(self._told(kind, key))

    def known(self, kind: Kind) -> list[tuple[Key, Stored]]:
        """Return the newest known state of all objects of a kind."""
        keys = {*self._indices.get(kind, {}), *(key for written, key in self._written if written == kind)}
        return [(key, item) for key in keys for item in self.read(kind, key)]

    def phases(self, kind: Literal["FineTuneJob", "ModelDeployment"]) -> Iterator[str]:
        """Return the phase of every resource of a kind; those that nobody has looked at are `Pending`."""
        for items in self._indices.get(kind, {}).values():
            yield from (item.phase or "Pending" for item in items)

    def listed(self, kind: Kind, namespace: str | None, version: int, names: Collection[tuple[str, str]]) -> list[Key]:
        """Forget what was written before a new list and is not in it; return whose that was.

        Args:
            kind: of the objects in the list.
            namespace: the one that was listed; None for all.
            version: of the list.
            names: (namespace, name) of all that is in it.
        """
        gone = [
            (key, name)
            for (written, key), items in self._written.items()
            if written == kind and namespace in (None, key.namespace)
            for name, item in items.items()
            if item.version <= version and (key.namespace, name) not in names
        ]
        for key, name in gone:
            self._drop_written(kind, key, name, version)
        return [key for key, _ in gone]

    def jobs(self, key: Key) -> list[JobView]:
        """Return the Jobs of a FineTuneJob."""
        return [item.value for item in self.read("Job", key)]

    def pods(self, key: Key) -> list[PodView]:
        """Return the pods that are for a resource."""
        return [item.value for item in self.read("Pod", key)]

    def rayservice(self, key: Key) -> RayServiceView | None:
        """Return the RayService of a ModelDeployment."""
        return next((item.value for item in self.read("RayService", key)), None)

    def workloads(self, key: Key, queued: Iterable[JobView]) -> dict[str, WorkloadView]:
        """Return {uid of a Job: what Kueue says of it}, for those of which the watch has told; listen for the rest."""
        told = {}
        for job in queued:
            self._queued[job.uid] = key
            for view in self._workloads.get(job.uid, ()):
                if view.namespace == job.namespace:  # elsewhere, whoever may make Workloads may name any Job
                    told[job.uid] = view
        return told

    def queued(self, job_uid: str, *, deleted: bool = False) -> Key | None:
        """Return which resource a Job was asked about for; nobody listens any more for one that is deleted."""
        return self._queued.pop(job_uid, None) if deleted else self._queued.get(job_uid)

    def wrote(self, kind: Kind, raw: Raw | None) -> None:
        """Remember what a write returned. A deletion that is complete returns no object."""
        if raw is None or raw.get("kind") == "Status" or (key := owner_of(kind, raw)) is None:
            return
        if raw["metadata"]["uid"] in self._gone:
            return  # it went before the answer came, and nothing would tell of that again
        item = stored(kind, raw)
        known = any(other.name == item.name for other in self._told(kind, key))
        if "deletionTimestamp" in raw["metadata"] and not known:
            return  # the watch has told of the end already
        self._written.setdefault((kind, key), {})[item.name] = item

    def tells_nothing_new(self, kind: Kind, key: Key, item: Stored) -> bool:
        """Tell whether the watch has told before all that a decision would see of an object."""
        return any(other.name == item.name and other.value == item.value for other in self._told(kind, key))

    def caught_up(self, kind: Kind, key: Key, item: Stored) -> None:
        """Forget what was written, once the watch has told as much or more of the object."""
        self._drop_written(kind, key, item.name, item.version)

    def went(self, kind: Kind, uid: str, version: int, known: tuple[Key, Stored] | None) -> None:
        """Forget what was written of an object that was gone at a version, also if the answer is still on its way."""
        self._gone[uid] = None
        if len(self._gone) > _GONE_REMEMBERED:
            self._gone.popitem(last=False)
        self._queued.pop(uid, None)
        if known is None:
            return
        key, item = known
        self._drop_written(kind, key, item.name, version)  # of a later version is another that has the name by now

    def _told(self, kind: Kind, key: Key) -> Iterable[Stored]:
        return self._indices.get(kind, {}).get(key, ())

    def _drop_written(self, kind: Kind, key: Key, name: str, version: int) -> None:
        """Forget what was written of an object up to a version."""
        written = self._written.get((kind, key), {})
        if name in written and written[name].version <= version:
            del written[name]
            if not written:
                del self._written[kind, key]
