"""Everything that belongs to one name: its FineTuneJob, what serves it or predicts with it, their pods and Events.

Only reads, and decides what belongs together; how it looks is for `screens`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from luthier.cluster import Cluster
from luthier.errors import Denied, LuthierError, NotFound
from luthier.kinds import BATCHPREDICTION, FINETUNEJOB, KINDS, MODELDEPLOYMENT, Kind, Raw, Resource, kind_names
from luthier_api.reasons import ConditionType


@dataclass(frozen=True)
class Overview:
    """What there is of one name."""

    name: str
    namespace: str
    resources: list[Resource]
    """The FineTuneJob first, if there is one."""
    pods: list[Raw] = field(default_factory=list)
    events: list[Raw] = field(default_factory=list)

    @property
    def job(self) -> Resource | None:
        """The FineTuneJob, if there is one."""
        return next((each for each in self.resources if each.kind is FINETUNEJOB), None)

    @property
    def settled(self) -> bool:
        """Whether each resource is ready or stalled, so that nothing more happens by itself."""
        return all(is_settled(resource) for resource in self.resources)

    def to_json(self) -> dict[str, Any]:
        """Return it for programs: the objects as the API server has them."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "fineTuneJob": self.job.raw if self.job else None,
            "modelDeployments": [each.raw for each in self.resources if each.kind is MODELDEPLOYMENT],
            "batchPredictions": [each.raw for each in self.resources if each.kind is BATCHPREDICTION],
            "pods": self.pods,
            "events": self.events,
        }


def is_settled(resource: Resource) -> bool:
    """Tell whether a resource is ready or stalled for its present spec."""
    suspended = bool(resource.spec.get("suspend")) and resource.status.phase == "Suspended"
    return resource.is_true(ConditionType.READY) or resource.is_true(ConditionType.STALLED) or suspended


def overview(cluster: Cluster, name: str, *, details: bool = False, only: Kind | None = None) -> Overview:
    """Return what there is of a name.

    A ModelDeployment or BatchPrediction belongs to it by its own name, or because it follows the FineTuneJob of that
    name.

    Args:
        cluster: Where to look.
        name: Name of a resource of any kind, or of several.
        details: Whether pods and Events are read too.
        only: Leave the other kinds out.

    Raises:
        NotFound: if there is nothing.
    """
    wanted = [kind for kind in KINDS if only in (None, kind)]
    job = cluster.find(FINETUNEJOB, name) if FINETUNEJOB in wanted else None
    others = cluster.every(kind for kind in wanted if kind is not FINETUNEJOB)
    mine = [each for each in others if each.name == name or (job and each.follows == name)]
    found = Overview(name, cluster.namespace, [*([job] if job else []), *mine])
    if not found.resources:
        raise nothing_of(cluster, name)
    return replace(found, pods=_pods(cluster, found), events=_events(cluster, found)) if details else found


def nothing_of(cluster: Cluster, name: str) -> NotFound:
    """Return the error on a name that nothing has, with the names that are there."""
    names = sorted({resource.name for resource in cluster.every()})
    there = f"there are: {', '.join(names[:8])}" if names else "it has none at all; choose another one with -n"
    return NotFound(f"There is no {kind_names('or')} {name} in namespace {cluster.namespace}; {there}.")


def pods_of(cluster: Cluster, resource: Resource) -> list[Raw]:
    """Return a resource's pods, newest first."""
    selector = f"{resource.kind.label}={resource.name}"
    pods = cluster.list(cluster.in_namespace("pods"), selector)
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def _pods(cluster: Cluster, found: Overview) -> list[Raw]:
    try:
        return [pod for resource in found.resources for pod in pods_of(cluster, resource)]
    except Denied:  # the page is of use without them
        return []


def _events(cluster: Cluster, found: Overview) -> list[Raw]:
    """Return the resources' own Events, oldest first."""
    mine = {(resource.kind.name, resource.name) for resource in found.resources}
    try:
        events = cluster.list(cluster.in_namespace("events"))
    except LuthierError:
        return []
    chosen = [event for event in events if _subject(event) in mine]
    return sorted(chosen, key=event_time)


def _subject(event: Raw) -> tuple[str, str]:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return str(about.get("kind", "")), str(about.get("name", ""))


def event_time(event: Raw) -> str:
    """Return when an Event happened last."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((time for time in times if time), event["metadata"].get("creationTimestamp", "")))
