"""What a plan is: a frozen value that says everything that is to be done for one resource, and nothing more.

The actions are carried out in the order of the fields. A plan is safe to stop after any of them and to make again:
objects have deterministic names, and the status, which remembers outcomes, is written last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier_api.reasons import Reason

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Delete:
    """An object to delete together with what it owns; it stays visible until its pods are gone."""

    api_version: str
    kind: Literal["Job", "RayService", "HTTPRoute", "Ingress"]
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Patch:
    """A change of one mutable field of an object that is otherwise immutable: a Job's suspend or time to live."""

    api_version: str
    kind: Literal["Job"]
    namespace: str
    name: str
    merge: Mapping[str, Any]


@dataclass(frozen=True)
class Scale:
    """The size of a Ray cluster's only group of workers, which KubeRay does not take from an edited RayService.

    Attributes:
        name: name of the RayCluster.
        replicas: workers that there are to be; None leaves that to Ray's autoscaler.
        fewest: the fewest that the autoscaler keeps.
        most: the most that it makes.
        remove: pods that are to go first.
    """

    namespace: str
    name: str
    replicas: int | None
    fewest: int
    most: int
    remove: tuple[str, ...] = ()


@dataclass(frozen=True)
class Apply:
    """An object that is to exist.

    `once` is for Jobs and Services, which do not change: the object is created if there is none of that name, and an
    existing one is used as it is. Everything else is applied by the server with the operator's field manager.
    """

    manifest: Manifest
    once: bool = False


@dataclass(frozen=True)
class EventNote:
    """An Event for people, written once, after the status that it speaks of."""

    reason: Reason
    message: str
    warning: bool = False

    @property
    def type(self) -> Literal["Normal", "Warning"]:
        """The type field of a Kubernetes Event."""
        return "Warning" if self.warning else "Normal"


@dataclass(frozen=True)
class Plan:
    """What is to be done for one resource. The empty plan is what a settled resource gets."""

    hold: bool = False
    """Whether the resource is given the finalizer first, so that it waits for its own end."""
    deletes: tuple[Delete, ...] = ()
    patches: tuple[Patch, ...] = ()
    scales: tuple[Scale, ...] = ()
    applies: tuple[Apply, ...] = ()
    status: Mapping[str, Any] | None = None
    """The whole new status in wire form, or None when it is what the resource already has."""
    events: tuple[EventNote, ...] = ()
    release: bool = False
    """Whether the finalizer is taken off last, which lets the resource go."""
    requeue_after_s: float | None = field(default=None, compare=False)
    assumes_gone: bool = False
    """Whether the plan rests on something not being there that was. A cache may miss a thing for a moment, so such a
    plan is carried out only if it is made again from what the API server itself says."""

    @property
    def empty(self) -> bool:
        """Whether nothing is to be written."""
        writes = (self.hold, self.deletes, self.patches, self.scales, self.applies, self.events, self.release)
        return not any(writes) and self.status is None
