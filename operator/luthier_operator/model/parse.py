"""From raw objects to views: the one place that reads what the API server returns.

Labels, annotations and messages may be anybody's: every text is bounded and printable, no object makes parsing fail,
and a Job that only looks like a run's has no owner. Nothing here decides and nothing here makes a request.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from luthier_api import GROUP
from luthier_api.finetunejob import RETRY_ANNOTATION
from luthier_api.modeldeployment import WISHES
from luthier_operator.model import names
from luthier_operator.model.sanitize import LONGEST, printable
from luthier_operator.model.timestamps import parse_time
from luthier_operator.model.views import (
    ApplicationView,
    JobView,
    Meta,
    PodView,
    Raw,
    RayServiceView,
    ResourceKind,
    WorkloadView,
)


def owner_uid(raw: Raw) -> str:
    """Return the uid of the object's controller, or an empty string."""
    for reference in raw["metadata"].get("ownerReferences", []):
        if reference.get("controller"):
            return str(reference["uid"])
    return ""


def meta_of(kind: ResourceKind, raw: Raw) -> Meta:
    """Return the metadata of a resource."""
    metadata = raw["metadata"]
    return Meta(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        deleting="deletionTimestamp" in metadata,
        retry=metadata.get("annotations", {}).get(RETRY_ANNOTATION, ""),
        wishes={wish: value for wish in WISHES if (value := _wish(metadata, wish))},
        finalizers=tuple(metadata.get("finalizers", ())),
    )


def _wish(metadata: Raw, wish: str) -> str:
    return printable(metadata.get("annotations", {}).get(f"{GROUP}/{wish}", ""), 64)


def job_view(raw: Raw) -> JobView:
    """Parse a Job that carries the operator's labels."""
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status", {})
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    end = next((c for c in _true_conditions(status) if c["type"] in ("Complete", "Failed")), None)
    run, stage = labels.get(names.RUN, ""), labels.get(names.COMPONENT, "")
    forged, owner = _forged(metadata, run, stage), owner_uid(raw) or annotations.get(names.OWNER_UID, "")
    return JobView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid="" if forged else owner,
        orphan=not (forged or owner or metadata.get("ownerReferences")),
        run=run,
        stage=stage,
        spec_hash=annotations.get(names.SPEC_HASH, ""),
        run_key=annotations.get(names.RUN_KEY),
        weights_version="".join(printable(annotations.get(names.WEIGHTS_VERSION, "")).split())[:_LONGEST_VERSION],
        suspended=bool(spec.get("suspend")),
        deleting="deletionTimestamp" in metadata,
        ttl_s=spec.get("ttlSecondsAfterFinished"),
        failed=status.get("failed", 0),
        outcome=end["type"] if end else None,
        reason=end.get("reason", "") if end else "",
        message=printable(end.get("message", "")) if end else "",
        created_at=parse_time(metadata.get("creationTimestamp")),
        started_at=parse_time(status.get("startTime")),
        ended_at=parse_time(end.get("lastTransitionTime")) if end else None,
        active=status.get("active", 0),
        queue=labels.get(names.QUEUE),
        suspensions=_natural_number(annotations.get(names.SUSPENDED, "0")),
        suspended_by=_writer_of_suspend(metadata),
        gpus=_gpus(spec["template"]["spec"]) * int(spec.get("parallelism", 1)),
        backoff_limit=int(spec.get("backoffLimit", 0)),
        nodes=int(spec.get("completions") or 1) if spec.get("completionMode") == "Indexed" else 1,
        image=_main(spec["template"]["spec"]["containers"]).get("image", ""),
    )


def _writer_of_suspend(metadata: Raw) -> str:
    """Return who wrote a Job's `suspend`, unless that is the operator, or a webhook in its request."""
    for entry in metadata.get("managedFields") or []:
        spec = (entry.get("fieldsV1") or {}).get("f:spec")
        if isinstance(spec, Mapping) and "f:suspend" in spec and entry.get("manager") != names.FIELD_MANAGER:
            return printable(entry.get("manager", ""), 128)
    return ""


def pod_view(raw: Raw) -> PodView:
    """Parse a pod that carries the operator's labels."""
    metadata, status = raw["metadata"], raw.get("status", {})
    phase, outlived_by = _end_of_main(status)
    main, told_to_go = _main(status.get("containerStatuses") or [{}]), _told_to_go(metadata)
    state: Raw = main.get("state", {})
    waiting, terminated = _waiting(status, state), state.get("terminated", {})
    return PodView(
        name=metadata["name"],
        owner_uid=owner_uid(raw),
        phase=phase,
        created_at=parse_time(metadata.get("creationTimestamp")),
        uid=metadata.get("uid", ""),
        deleting="deletionTimestamp" in metadata,
        ip=status.get("podIP"),
        status_reason=printable(status.get("reason", "")),
        status_message=printable(status.get("message", "")),
        unschedulable=_unschedulable(status),
        disruption=_disruption(status),
        disruption_reason=next((c.get("reason", "") for c in _disruptions(status)), ""),
        started_at=_started_at(state.get("running", terminated)),
        finished_at=parse_time(terminated.get("finishedAt")),
        node=raw["spec"].get("nodeName", ""),
        index=_natural_number(metadata.get("annotations", {}).get("batch.kubernetes.io/job-completion-index", "0")),
        waiting_reason=printable(waiting.get("reason", "")),
        waiting_message=printable(waiting.get("message", "")),
        exit_code=terminated.get("exitCode"),
        terminated_reason=_why_ended(terminated, told_to_go),
        termination_message=terminated.get("message", "")[:LONGEST],
        memory_limit=_main(raw["spec"]["containers"]).get("resources", {}).get("limits", {}).get("memory"),
        gpus=_gpus(raw["spec"]),
        outlived_by=outlived_by,
        component=metadata.get("labels", {}).get(names.COMPONENT, ""),
        memory_killed_at=_memory_killed_at(main, told_to_go),
    )


def _memory_killed_at(main: Raw, told_to_go: datetime | None) -> datetime | None:
    """Return when the container was last ended at its memory limit, the one that runs now or the one before it."""
    ends = (main.get(which, {}).get("terminated", {}) for which in ("state", "lastState"))
    return next((parse_time(end.get("finishedAt")) for end in ends if _why_ended(end, told_to_go) == "OOMKilled"), None)


def _why_ended(terminated: Raw, told_to_go: datetime | None) -> str:
    """Return the reason for a container's end, which is not memory once its pod was told to go.

    containerd says OOMKilled of every container in which the kernel has ended a process before.
    """
    reason: str = terminated.get("reason", "")
    finished_at = parse_time(terminated.get("finishedAt"))
    stopped = told_to_go and finished_at and finished_at >= told_to_go
    return "Error" if stopped and reason == "OOMKilled" else reason


def _told_to_go(metadata: Raw) -> datetime | None:
    """Return when an object's deletion was asked for, before its grace period."""
    gone_by = parse_time(metadata.get("deletionTimestamp"))
    return gone_by - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0) if gone_by else None


def workload_view(raw: Raw) -> WorkloadView:
    """Parse one of Kueue's Workloads."""
    conditions = {condition["type"]: condition for condition in raw.get("status", {}).get("conditions") or []}
    evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
    admitted = conditions.get("Admitted", {})
    stopped = evicted.get("status") == "True"
    # A quota that is reserved may still wait for admission checks.
    telling = admitted if reserved.get("status") == "True" else reserved
    return WorkloadView(
        job_uid=raw["metadata"]["labels"][names.QUEUED_JOB],
        namespace=raw["metadata"].get("namespace", ""),
        admitted=admitted.get("status") == "True" and not stopped,
        reason=telling.get("reason", ""),
        message=printable(telling.get("message", "")),
        evicted=printable(evicted.get("message", "")) if stopped else None,
        evicted_at=parse_time(evicted.get("lastTransitionTime")) if stopped else None,
        inadmissible=reserved.get("status") == "False" and reserved.get("reason") == "Inadmissible",
    )


def rayservice_view(raw: Raw) -> RayServiceView:
    """Parse a RayService that carries the operator's labels."""
    metadata, status = raw["metadata"], raw.get("status", {})
    active, pending = status.get("activeServiceStatus", {}), status.get("pendingServiceStatus", {})
    # KubeRay 1.6 reports the applications of one Ray cluster only: the pending one, if there is one.
    reported = pending if pending.get("rayClusterName") else active
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
        applications={name: _application(app) for name, app in (reported.get("applicationStatuses") or {}).items()},
        invalid=printable(ready.get("message", "")) if ready.get("reason") == "RayServiceValidationFailed" else None,
        workers=cluster.get("desiredWorkerReplicas", 0),
        ready_workers=cluster.get("readyWorkerReplicas", 0),
        fewest_workers=cluster.get("minWorkerReplicas", 0),
        most_workers=cluster.get("maxWorkerReplicas", 0),
        spec_hash=metadata.get("annotations", {}).get(names.SPEC_HASH, ""),
        cluster_hash=metadata.get("annotations", {}).get(names.CLUSTER_HASH, ""),
        previous=metadata.get("annotations", {}).get(names.PREVIOUS, ""),
        refused=_refused(reported.get("rayClusterStatus", {})),
        cluster=str(reported.get("rayClusterName", "")),
        created_at=parse_time(metadata.get("creationTimestamp")),
        orphan=not metadata.get("ownerReferences") and names.MODELDEPLOYMENT in metadata.get("labels", {}),
    )


def _refused(cluster: Raw) -> str:
    """Return why KubeRay cannot create the pods of a Ray cluster, if its condition says so."""
    found = (c for c in _true_conditions(cluster) if c.get("type") == "ReplicaFailure")
    return next((printable(c.get("message", "")) for c in found), "")


def _application(raw: Raw) -> ApplicationView:
    """Join the message of the application with those of its deployments: Ray puts the cause in either."""
    deployments = (raw.get("serveDeploymentStatuses") or {}).values()
    messages = [raw.get("message", ""), *(deployment.get("message", "") for deployment in deployments)]
    text = "\n".join(message for message in messages if message)
    return ApplicationView(raw.get("status", ""), printable(text, 8 * LONGEST))


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
    """Return the container that Luthier made, beside which admission may have put others; in Ray's pods, the first."""
    listed = list(containers)
    return next((each for each in listed if each.get("name") == names.CONTAINER), listed[0])


def _end_of_main(status: Raw) -> tuple[str, tuple[str, ...]]:
    """Return the pod's phase, and the containers beside ours because of which Kubernetes would say another one.

    What counts is the container that Luthier made. Native sidecars, which are init containers, end with it.
    """
    phase: str = status.get("phase", "Pending")
    containers = status.get("containerStatuses") or []
    ended = next((each["state"].get("terminated") for each in containers if each.get("name") == names.CONTAINER), None)
    if ended is None or len(containers) == 1:
        return phase, ()
    others = [each for each in containers if each.get("name") != names.CONTAINER]
    well = ended.get("exitCode") == 0
    states = [(str(each.get("name", "")), each.get("state", {}).get("terminated")) for each in others]
    found = [name for name, state in states if state is None or (well and state.get("exitCode") != 0)]
    return "Succeeded" if well else "Failed", tuple(printable(name, 63) for name in found)


def _started_at(state: Raw) -> datetime | None:
    """Return when a container started. Of one that it could not start, the runtime says: in 1970."""
    found = parse_time(state.get("startedAt"))
    return found if found and found.timestamp() > 0 else None


_LONGEST_VERSION = 64
_STARTING = ("", "ContainerCreating", "PodInitializing")


def _waiting(status: Raw, main: Raw) -> Raw:
    """Return why the pod waits: the reason of the main container, or that of an init container or sidecar."""
    own: Raw = main.get("waiting", {})
    if own.get("reason", "") not in _STARTING or "running" in main or "terminated" in main:
        return own
    others = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    reasons = (each.get("state", {}).get("waiting", {}) for each in others)
    return next((each for each in reasons if each.get("reason", "") not in _STARTING), own)


_SHA256 = re.compile(r"[0-9a-f]{64}")
_STAGES: tuple[names.Component, ...] = ("prepare", "train", "predict")


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
    return _natural_number(limits.get(names.GPU, "0"))


def _natural_number(text: str) -> int:
    """Return the number, or 0 for any other text, which whoever forges a pod may write."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
