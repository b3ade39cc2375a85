"""What the operator knows of the cluster's objects, as typed values. `parse` makes them, `plan` reads them.

Only the fields that a decision needs are kept, so that thousands of pods fit in memory. Nothing here decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from luthier_api.documents import ServerReport
from luthier_api.finetunejob import FineTuneJobStatus
from luthier_api.storage import StorageAccess
from luthier_operator.model import names

Raw = Mapping[str, Any]
ResourceKind = Literal["FineTuneJob", "ModelDeployment", "BatchPrediction"]
RESOURCE_KINDS: tuple[ResourceKind, ...] = ("FineTuneJob", "ModelDeployment", "BatchPrediction")


@dataclass(frozen=True)
class Key:
    """Which resource a reconcile is for."""

    kind: ResourceKind
    namespace: str
    name: str


@dataclass(frozen=True)
class Meta:
    """The metadata of a resource that decisions use."""

    kind: ResourceKind
    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool = False
    retry: str = ""
    finalizers: tuple[str, ...] = ()
    wishes: Mapping[str, str] = field(default_factory=dict)
    """Annotations by which a user steers a rollout once: {promote, pause, abort or skip: its value}."""

    @property
    def held(self) -> bool:
        """Whether it carries the operator's finalizer."""
        return names.FINALIZER in self.finalizers

    @property
    def key(self) -> Key:
        """The key of the work queue."""
        return Key(self.kind, self.namespace, self.name)


@dataclass(frozen=True)
class JobView:
    """A Job of a run of a FineTuneJob or a BatchPrediction."""

    namespace: str
    name: str
    uid: str
    owner_uid: str
    run: str
    stage: str
    spec_hash: str
    run_key: str | None
    suspended: bool
    deleting: bool
    ttl_s: int | None
    failed: int
    outcome: Literal["Complete", "Failed"] | None
    reason: str
    message: str
    created_at: datetime | None = None
    started_at: datetime | None = None
    """When it last began to make pods; None while it is suspended."""
    ended_at: datetime | None = None
    active: int = 0
    """Pods that it has made and that have not ended."""
    queue: str | None = None
    """The Kueue LocalQueue that it waits in. `suspended` is then Kueue's, and never written by the operator."""
    gpus: int = 0
    """GPUs of all its pods together."""
    backoff_limit: int = 0
    """Failures after which it still makes another pod."""
    nodes: int = 1
    """Pods that train together: more than one in an Indexed Job."""
    image: str = ""
    """What its pods run."""
    weights_version: str = ""
    """The version whose weights it uses, if it trains nothing."""
    pods: "tuple[PodView, ...]" = ()
    """Those that it made, newest first; joined to it by `ownership`, and not by the store."""

    orphan: bool = False
    """Whether it is a run's Job in all but its owner, as after a deletion that left it behind, or a restore."""
    suspensions: int = 0
    """How often the operator has suspended it since it last ran as it should; 0 if not the operator has."""
    suspended_by: str = ""
    """Who wrote its `suspend`, as far as that is known, if not the operator."""
    outlived_by: tuple[str, ...] = ()
    """Containers that keep its pod from ending as its own container did; see `ownership`."""
    lingering: bool = False
    """Whether Kubernetes waits for those containers: `outcome` is then that of its own container."""

    @property
    def held(self) -> bool:
        """Whether somebody has suspended it, and not the operator; in a queue, that is Kueue's to do."""
        return self.suspended and not self.suspensions and self.queue is None and self.outcome is None

    @property
    def live(self) -> bool:
        """Whether it has, or may still get, a running pod."""
        return self.outcome is None or self.lingering


@dataclass(frozen=True)
class PodView:
    """A pod of a Job."""

    name: str
    owner_uid: str
    phase: str
    created_at: datetime | None
    uid: str = ""
    deleting: bool = False
    ip: str | None = None
    status_reason: str = ""
    status_message: str = ""
    unschedulable: str | None = None
    disruption: str | None = None
    disruption_reason: str = ""
    """The DisruptionTarget condition's reason: PreemptionByScheduler, EvictionByEvictionAPI, DeletionByTaintManager,
    DeletionByPodGC, TerminationByKubelet."""
    started_at: datetime | None = None
    """When its container started."""
    finished_at: datetime | None = None
    node: str = ""
    index: int = 0
    """Its place in an Indexed Job."""
    waiting_reason: str = ""
    waiting_message: str = ""
    exit_code: int | None = None
    terminated_reason: str = ""
    termination_message: str = ""
    memory_limit: str | None = None
    gpus: int = 0
    outlived_by: tuple[str, ...] = ()
    """Containers that admission put beside its own and that run on after its end, or failed though it did not."""
    component: str = ""
    """What it is for, from its label: head or worker of a server."""
    memory_killed_at: datetime | None = None
    """When its container was last ended at its memory limit; it may have started again."""

    @property
    def ended(self) -> bool:
        """Whether it has come to an end, well or not."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def mounting(self) -> bool:
        """Whether a node has it and no container of it has started: it mounts volumes, or pulls an image."""
        starting = self.waiting_reason in ("ContainerCreating", "PodInitializing")
        return self.phase == "Pending" and bool(self.node) and starting


@dataclass(frozen=True)
class WorkloadView:
    """What Kueue says of a Job that waits in a queue, or was let out of it."""

    job_uid: str
    admitted: bool
    namespace: str = ""
    reason: str = ""
    message: str = ""
    """Why it waits, in the words of Kueue."""
    evicted: str | None = None
    """Why it was stopped after it had been admitted, if it was and waits again."""
    evicted_at: datetime | None = None
    inadmissible: bool = False
    """Whether waiting alone cannot help: there is no such queue, or it is stopped."""


@dataclass(frozen=True)
class FineTuneJobView:
    """What is to be known of the FineTuneJob whose version a resource serves or predicts with."""

    name: str
    storage: StorageAccess
    """How the output is reached, and so the versions."""
    status: FineTuneJobStatus


@dataclass(frozen=True)
class ApplicationView:
    """A Ray Serve application, from the status of the RayService."""

    status: str
    message: str


@dataclass(frozen=True)
class RayServiceView:
    """The RayService of a ModelDeployment."""

    name: str
    uid: str
    owner_uid: str
    deleting: bool
    serve_config: str
    generation: int
    observed_generation: int
    serving: bool
    """Whether its Service has an endpoint."""
    upgrading: bool
    """Whether a second Ray cluster is being brought up. The first still serves; its status is not reported then."""
    applications: Mapping[str, ApplicationView]
    invalid: str | None
    """Why KubeRay does not accept the RayService, if it does not."""
    workers: int
    ready_workers: int
    fewest_workers: int = 0
    most_workers: int = 0
    """Bounds of the number of workers; 0 and 0 while KubeRay has not said them."""
    spec_hash: str = ""
    """Hash of all that the operator applied, from its annotation."""
    cluster_hash: str = ""
    """Hash of the Ray cluster's part of that."""
    previous: str = ""
    """Arguments of the revision to return to, from the operator's annotation."""
    orphan: bool = False
    """Whether it has the operator's labels and no owner, as after a deletion that left it behind, or a restore."""
    refused: str = ""
    """Why KubeRay may not create the pods, if its status says so."""
    cluster: str = ""
    """Name of the Ray cluster that starts, or of the one that serves."""
    created_at: datetime | None = None


@dataclass(frozen=True)
class PodReport:
    """What the server replica in a pod last said of itself.

    Attributes:
        pod: name of the pod.
        report: its newest answer; None if it has not answered yet, or no more.
    """

    pod: str
    report: ServerReport | None


@dataclass(frozen=True)
class Refusal:
    """The API server did not accept an object of a plan."""

    message: str
    quota_exceeded: bool = False
    """Whether only a quota of the namespace is in the way, which may change without an edit."""
