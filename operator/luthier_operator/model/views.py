"""What the operator has seen of the cluster, as typed values: the edge at which raw objects are parsed.

Only the fields that a decision needs are kept, so that thousands of pods fit in the cache. Nothing here decides and
nothing here reads: the cache and the cluster adapter hand raw objects in, `plan` takes the views. Labels, annotations
and messages may be anybody's, so every text is bounded and printable, and no object makes parsing fail.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from luthier_api.finetunejob import RETRY_ANNOTATION, FineTuneJobStatus
from luthier_api.storage import StorageAccess
from luthier_operator.model import names
from luthier_operator.model.sanitize import LONGEST, printable

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """Which resource a reconcile is for."""

    kind: Literal["FineTuneJob", "ModelDeployment"]
    namespace: str
    name: str


@dataclass(frozen=True)
class Meta:
    """The metadata of a resource that decisions use."""

    kind: Literal["FineTuneJob", "ModelDeployment"]
    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool = False
    retry: str = ""
    finalizers: tuple[str, ...] = ()

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
    """A Job of a run."""

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
    created_at: str = ""
    started_at: str = ""
    """When it last began to make pods; empty while it is suspended."""
    ended_at: str = ""
    active: int = 0
    """Pods that it has made and that have not ended."""
    queue: str | None = None
    """The Kueue LocalQueue that it waits in. `suspended` is then Kueue's, and never written by the operator."""
    gpus: int = 0
    """GPUs of all its pods together."""
    nodes: int = 1
    """Pods that train together: more than one in an Indexed Job."""
    image: str = ""
    """What its pods run."""

    @property
    def live(self) -> bool:
        """Whether it has, or may still get, a running pod."""
        return self.outcome is None


@dataclass(frozen=True)
class PodView:
    """A pod of a Job."""

    name: str
    owner_uid: str
    phase: str
    created_at: str
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
    started_at: str = ""
    """When its container started."""
    finished_at: str = ""
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

    @property
    def ended(self) -> bool:
        """Whether it has come to an end, well or not."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class WorkloadView:
    """What Kueue says of a Job that waits in a queue, or was let out of it."""

    job_uid: str
    admitted: bool
    namespace: str = ""
    reason: str = ""
    message: str = ""
    """Why it waits: Kueue's own words."""
    evicted: str | None = None
    """Why it was stopped after it had been admitted, if it was and waits again."""
    evicted_at: str = ""
    inadmissible: bool = False
    """Whether waiting alone cannot help: there is no such queue, or it is stopped."""


@dataclass(frozen=True)
class FineTuneJobView:
    """What a ModelDeployment needs to know of the FineTuneJob that it follows."""

    name: str
    storage: StorageAccess
    """How the output is reached, and so the versions."""
    status: FineTuneJobStatus


@dataclass(frozen=True)
class ApplicationView:
    """A Ray Serve application, as the RayService's status tells it."""

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
    """Whether a second Ray cluster is being brought up; the first, of which nothing is told then, still serves."""
    applications: Mapping[str, ApplicationView]
    refused: str | None
    """Why KubeRay refuses the RayService, if it does."""
    workers: int
    ready_workers: int
    spec_hash: str = ""
    """Hash of all that the operator applied, from its annotation."""


@dataclass(frozen=True)
class Refusal:
    """That the API server did not accept what the last plan was to make."""

    message: str
    quota_exceeded: bool = False
    """Whether it only lacks room, which may come without an edit."""


def owner_uid(raw: Raw) -> str:
    """Return the uid of the object's controller, or an empty string."""
    for reference in raw["metadata"].get("ownerReferences", []):
        if reference.get("controller"):
            return str(reference["uid"])
    return ""


def meta_of(kind: Literal["FineTuneJob", "ModelDeployment"], raw: Raw) -> Meta:
    """Return the metadata of one of the two resources."""
    metadata = raw["metadata"]
    return Meta(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        deleting="deletionTimestamp" in metadata,
        retry=metadata.get("annotations", {}).get(RETRY_ANNOTATION, ""),
        finalizers=tuple(metadata.get("finalizers", ())),
    )


def job_view(raw: Raw) -> JobView:
    """Parse a Job that carries the operator's labels."""
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    end = next((c for c in _true_conditions(status) if c["type"] in ("Complete", "Failed")), None)
    run, stage = labels.get(names.RUN, ""), labels.get(names.COMPONENT, "")
    return JobView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid="" if _forged(metadata, run, stage) else owner_uid(raw) or annotations.get(names.OWNER_UID, ""),
        run=run,
        stage=stage,
        spec_hash=annotations.get(names.SPEC_HASH, ""),
        run_key=annotations.get(names.RUN_KEY),
        suspended=bool(spec.get("suspend")),
        deleting="deletionTimestamp" in metadata,
        ttl_s=spec.get("ttlSecondsAfterFinished"),
        failed=status.get("failed", 0),
        outcome=end["type"] if end else None,
        reason=end.get("reason", "") if end else "",
        message=printable(end.get("message", "")) if end else "",
        created_at=metadata.get("creationTimestamp", ""),
        started_at=status.get("startTime", ""),
        ended_at=end.get("lastTransitionTime", "") if end else "",
        active=status.get("active", 0),
        queue=labels.get(names.QUEUE),
        gpus=_gpus(spec["template"]["spec"]) * int(spec.get("parallelism", 1)),
        nodes=int(spec.get("completions") or 1) if spec.get("completionMode") == "Indexed" else 1,
        image=_main(spec["template"]["spec"]["containers"]).get("image", ""),
    )


def pod_view(raw: Raw) -> PodView:
    """Parse a pod that carries the operator's labels."""
    metadata, status = raw["metadata"], raw.get("status", {})
    state: Raw = _main(status.get("containerStatuses") or [{}]).get("state", {})
    waiting, terminated = _waiting(status, state), state.get("terminated", {})
    return PodView(
        name=metadata["name"],
        owner_uid=owner_uid(raw),
        phase=status.get("phase", "Pending"),
        created_at=metadata.get("creationTimestamp", ""),
        uid=metadata.get("uid", ""),
        deleting="deletionTimestamp" in metadata,
        ip=status.get("podIP"),
        status_reason=printable(status.get("reason", "")),
        status_message=printable(status.get("message", "")),
        unschedulable=_unschedulable(status),
        disruption=_disruption(status),
        disruption_reason=next((c.get("reason", "") for c in _disruptions(status)), ""),
        started_at=state.get("running", terminated).get("startedAt") or "",
        finished_at=terminated.get("finishedAt") or "",
        node=raw["spec"].get("nodeName", ""),
        index=_whole(metadata.get("annotations", {}).get("batch.kubernetes.io/job-completion-index", "0")),
        waiting_reason=printable(waiting.get("reason", "")),
        waiting_message=printable(waiting.get("message", "")),
        exit_code=terminated.get("exitCode"),
        terminated_reason=terminated.get("reason", ""),
        termination_message=terminated.get("message", "")[:LONGEST],
        memory_limit=_main(raw["spec"]["containers"]).get("resources", {}).get("limits", {}).get("memory"),
        gpus=_gpus(raw["spec"]),
    )


def workload_view(raw: Raw) -> WorkloadView:
    """Parse one of Kueue's Workloads."""
    conditions = {condition["type"]: condition for condition in raw.get("status", {}).get("conditions") or []}
    evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
    admitted = conditions.get("Admitted", {})
    stopped = evicted.get("status") == "True"
    # A quota that is reserved may still wait for admission checks.
    told = admitted if reserved.get("status") == "True" else reserved
    return WorkloadView(
        job_uid=raw["metadata"]["labels"][names.QUEUED_JOB],
        namespace=raw["metadata"].get("namespace", ""),
        admitted=admitted.get("status") == "True" and not stopped,
        reason=told.get("reason", ""),
        message=printable(told.get("message", "")),
        evicted=printable(evicted.get("message", "")) if stopped else None,
        evicted_at=evicted.get("lastTransitionTime", "") if stopped else "",
        inadmissible=reserved.get("status") == "False" and reserved.get("reason") == "Inadmissible",
    )


def rayservice_view(raw: Raw) -> RayServiceView:
    """Parse a RayService that carries the operator's labels."""
    metadata, status = raw["metadata"], raw.get("status", {})
    active, pending = status.get("activeServiceStatus", {}), status.get("pendingServiceStatus", {})
    # KubeRay 1.6 talks to one cluster's dashboard only: the pending one, if there is one.
    told = pending if pending.get("rayClusterName") else active
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    cluster = (active if active.get("rayClusterName") else pending).get("rayClusterStatus", {})
    return RayServiceView(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=owner_uid(raw),
        deleting="deletionTimestamp" in metadata,
        serve_config=raw["spec"].get("serveConfigV2", ""),
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        serving=ready.get("status") == "True",
        upgrading=bool(active.get("rayClusterName")) and bool(pending.get("rayClusterName")),
        applications={name: _application(app) for name, app in (told.get("applicationStatuses") or {}).items()},
        refused=printable(ready.get("message", "")) if ready.get("reason") == "RayServiceValidationFailed" else None,
        workers=cluster.get("desiredWorkerReplicas", 0),
        ready_workers=cluster.get("readyWorkerReplicas", 0),
        spec_hash=metadata.get("annotations", {}).get(names.SPEC_HASH, ""),
    )


def _application(raw: Raw) -> ApplicationView:
    """Join the application's message with those of its deployments: Ray puts the cause in either."""
    deployments = (raw.get("serveDeploymentStatuses") or {}).values()
    messages = [raw.get("message", ""), *(deployment.get("message", "") for deployment in deployments)]
    said = "\n".join(message for message in messages if message)
    return ApplicationView(raw.get("status", ""), printable(said, 8 * LONGEST))


def _true_conditions(status: Raw) -> Iterator[Raw]:
    return (c for c in status.get("conditions") or [] if c.get("status") == "True")


def _unschedulable(status: Raw) -> str | None:
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return printable(condition.get("message", ""))
    return None


def _disruptions(status: Raw) -> Iterator[Raw]:
    return (c for c in _true_conditions(status) if c["type"] == "DisruptionTarget")


def _disruption(status: Raw) -> str | None:
    return next((printable(c.get("message") or c.get("reason", "")) for c in _disruptions(status)), None)


def _main(containers: Iterable[Raw]) -> Raw:
    """Return the container that Luthier made, beside which others may have been put; else, as for Ray's, the first."""
    several = list(containers)
    return next((each for each in several if each.get("name") == names.CONTAINER), several[0])


_ON_ITS_WAY = ("", "ContainerCreating", "PodInitializing")


def _waiting(status: Raw, main: Raw) -> Raw:
    """Return why the pod waits: the main container's reason, or that of one which others have put before it."""
    own: Raw = main.get("waiting", {})
    if own.get("reason", "") not in _ON_ITS_WAY or "running" in main or "terminated" in main:
        return own
    others = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    reasons = (each.get("state", {}).get("waiting", {}) for each in others)
    return next((each for each in reasons if each.get("reason", "") not in _ON_ITS_WAY), own)


_SHA256 = re.compile(r"[0-9a-f]{64}")
_STAGES: tuple[names.Stage, ...] = ("prepare", "train")


def _forged(metadata: Raw, run: str, stage: str) -> bool:
    """Whether an object that looks like a run's Job cannot be one, whatever it says of its owner."""
    if stage in names.REMOVALS:
        return False
    if not any(metadata["name"] == names.job_name(run, known) for known in _STAGES if known == stage):
        return True
    annotations = metadata.get("annotations", {})
    key = annotations.get(names.RUN_KEY)
    hashes = [annotations.get(names.SPEC_HASH, ""), *([] if key is None else [key])]
    return not all(_SHA256.fullmatch(each) for each in hashes)


def _gpus(pod: Raw) -> int:
    limits: Raw = _main(pod["containers"]).get("resources", {}).get("limits", {})
    return _whole(limits.get(names.GPU, "0"))


def _whole(text: str) -> int:
    """Read a number that the operator or Kubernetes wrote; whoever forges the labels of a pod may write anything."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
