"""What a steering command writes, and why it would be of no use: pure functions over a resource as it was read.

A rollout is steered by annotations that name a generation (docs/serving.md): "7", and "7#2" to ask for the same a
second time. A run is retried by an annotation with a new value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luthier.errors import Invalid
from luthier.kinds import BATCHPREDICTION, FINETUNEJOB, MODELDEPLOYMENT, Kind, Raw, Resource
from luthier_api import GROUP
from luthier_api.finetunejob import RETRY_ANNOTATION
from luthier_api.modeldeployment import ModelDeploymentStatus
from luthier_api.reasons import ConditionType

Wish = Literal["promote", "pause", "abort", "skip"]
_EFFECT: dict[Wish, str] = {
    "promote": "end this step now, whatever its time or figures",
    "pause": "stay in this step until `luthier promote`",
    "abort": "roll back now",
    "skip": "give it all requests now, without further steps",
}
_SUSPENDED: dict[Kind, str] = {
    FINETUNEJOB: "stop the run and free its GPUs",
    MODELDEPLOYMENT: "remove the server, so that nobody answers",
    BATCHPREDICTION: "stop the workers; what they have stored stays",
}
# From then on the server replicas hold it, and going back is a rollout of its own.
_TOO_LATE_TO_ABORT = ("Loading", "Dropping")


@dataclass(frozen=True)
class Change:
    """A patch, and the question whether to make it."""

    patch: Raw
    question: str
    kubectl: str
    """The same by hand."""


def steer(deployment: Resource, wish: Wish) -> Change:
    """Return what steers the rollout of a ModelDeployment.

    Raises:
        Invalid: if there is nothing to steer, so that the annotation would only be taken as done.
    """
    rollout = deployment.deployment_status.rollout
    if rollout is None or rollout.stage == "Dropping":
        raise Invalid(f"No rollout of {deployment.title} is under way, so there is nothing to {wish}.")
    if wish == "abort" and rollout.stage in _TOO_LATE_TO_ABORT:
        raise Invalid(
            f"It is too late to abort: the replicas load the new version; `luthier rollback {deployment.name}`."
        )
    key = f"{GROUP}/{wish}"
    value = _unused(deployment, key, wish)
    where = f"step {rollout.step} of {rollout.steps}, " if rollout.steps else ""
    at = f"{where}{rollout.weight} % of the requests"
    return Change(
        _annotate(key, value),
        f"{deployment.title}: {_version_of(deployment)} has {at}. {_EFFECT[wish].capitalize()}?",
        _kubectl(deployment, key, value),
    )


def retry(resource: Resource, now_s: int) -> Change:
    """Return what tries a failed run or revision again with the same spec.

    Raises:
        Invalid: if a run has not failed, since the annotation would change nothing.
    """
    if resource.kind is not MODELDEPLOYMENT and not resource.is_true(ConditionType.STALLED):
        raise Invalid(f"{resource.title} has not failed ({resource.status.phase}), so there is nothing to try again.")
    value = str(now_s)
    return Change(
        _annotate(RETRY_ANNOTATION, value),
        f"{resource.title}: {_what_retry_does(resource)}?",
        _kubectl(resource, RETRY_ANNOTATION, value),
    )


def suspend(resource: Resource, suspended: bool) -> Change:
    """Return what suspends or resumes a resource. Raises Invalid if it is so already."""
    if bool(resource.spec.get("suspend", False)) is suspended:
        raise Invalid(f"{resource.title} is {'suspended already' if suspended else 'not suspended'}.")
    patch: Raw = {"spec": {"suspend": suspended}}
    word = "true" if suspended else "false"
    return Change(
        patch,
        f"{resource.title}: {_SUSPENDED[resource.kind] if suspended else 'go on'}?",
        f'kubectl patch {resource.kind.short} {resource.name} --type=merge -p \'{{"spec":{{"suspend":{word}}}}}\'',
    )


def previous_version(deployment: Resource) -> str:
    """Return the version that had all requests before the present one. Raises Invalid if there was none."""
    status = deployment.deployment_status
    current = status.current_version
    for served in status.history:
        if served.version != current:
            return served.version
    raise Invalid(f"{deployment.title} has served no version before {current or 'its first one'}; give --to-version.")


def pin(deployment: Resource, job: Resource | None, version: str) -> Change:
    """Return what pins a ModelDeployment that follows a FineTuneJob to one of its versions.

    Raises:
        Invalid: if it names its model by uri, or the FineTuneJob has no such version.
    """
    reference = deployment.spec["model"].get("fineTuneJobRef")
    if reference is None:
        raise Invalid(f"{deployment.title} names its model by uri and digest: edit them, or use `luthier pin`.")
    if reference.get("version") == version:
        raise Invalid(f"{deployment.title} is pinned to {version} already.")
    known = [each.version for each in job.job_status.versions if not each.removing] if job else []
    if version not in known:
        there = ", ".join(known[:5]) or "none"
        raise Invalid(f"FineTuneJob {reference['name']} has no version {version}; it has: {there}.")
    patch: Raw = {"spec": {"model": {"fineTuneJobRef": {"version": version}}}}
    serves = deployment.deployment_status.current_version or "nothing yet"
    return Change(
        patch,
        f"{deployment.title}: serve {version} instead of {serves}, and stay with it?",
        f"kubectl patch {deployment.kind.short} {deployment.name} --type=merge "
        f'-p \'{{"spec":{{"model":{{"fineTuneJobRef":{{"version":"{version}"}}}}}}}}\'',
    )


def _annotate(key: str, value: str) -> Raw:
    return {"metadata": {"annotations": {key: value}}}


def _unused(deployment: Resource, key: str, wish: Wish) -> str:
    """Return a value that names the present generation and was not asked for before."""
    used = {deployment.annotations.get(key), deployment.deployment_status.handled.get(wish)}
    value, number = str(deployment.generation), 1
    while value in used:
        number += 1
        value = f"{deployment.generation}#{number}"
    return value


def _version_of(deployment: Resource) -> str:
    status: ModelDeploymentStatus = deployment.deployment_status
    name = status.rollout.revision if status.rollout else ""
    return next((revision.version for revision in status.revisions if revision.name == name), name)


def _what_retry_does(resource: Resource) -> str:
    if resource.kind is FINETUNEJOB:
        checkpoint = resource.job_status.checkpoint
        return f"try again from step {checkpoint.step}" if checkpoint else "try again from the beginning"
    if resource.kind is BATCHPREDICTION:
        return "compute the shards that are missing"
    if resource.is_true(ConditionType.STALLED):
        return "try the rejected revision again"
    return "start the version that it serves anew, as a new revision beside the present one"


def _kubectl(resource: Resource, key: str, value: str) -> str:
    return f"kubectl annotate {resource.kind.short} {resource.name} --overwrite {key}='{value}'"
