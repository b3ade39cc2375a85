"""Why a pod does not run although nothing has failed: in one sentence what is so, and what to do next.

Everything here may heal without an edit of the resource, so nothing here ends a run. Three parts of Kubernetes have
their say: the kubelet in the container's waiting state, the scheduler in the PodScheduled condition, and, for a pod
that was never made or never mounted its volumes, the Events (`refusal`). Reads views and text, decides nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from luthier_api.reasons import Reason
from luthier_operator.model.sanitize import printable
from luthier_operator.model.views import PodView

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# A kubelet's message may quote a whole registry answer.
_LONGEST = 700
_LOST_WITH_NODE = {"DeletionByTaintManager", "DeletionByPodGC"}


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not run, although nothing has failed yet: it may heal."""

    reason: Reason
    message: str


def trouble_of(pods: Iterable[PodView]) -> Trouble | None:
    """Return why the first of these pods that is stuck does not run."""
    found = (_of(pod) for pod in pods if not pod.ended)
    return next((trouble for trouble in found if trouble), None)


def _of(pod: PodView) -> Trouble | None:
    if pod.deleting:
        return _lost(pod) if pod.disruption_reason in _LOST_WITH_NODE and pod.node else None
    if pod.waiting_reason in _IMAGE:
        said = clip(pod.waiting_message or pod.waiting_reason)
        return Trouble(
            Reason.IMAGE_PULL_FAILED,
            f"The image cannot be pulled: {said} Correct its name, or name imagePullSecrets that may pull it.",
        )
    if pod.waiting_reason in _CONFIG:
        return _unstartable(pod.waiting_message or pod.waiting_reason)
    if pod.unschedulable is not None and not pod.ip:
        return _unschedulable(pod.unschedulable)
    return None


def _lost(pod: PodView) -> Trouble:
    """Kubernetes does not know whether such a pod still runs, so it starts no other one: two must never train."""
    return Trouble(
        Reason.NODE_LOST,
        f"The node {pod.node} does not answer, and whether the pod {pod.name} still runs there is not known. The run "
        f"goes on when the node is back, or, if it is gone for good, after: kubectl delete node {pod.node}.",
    )


_HEALS = "and the run goes on by itself."


def _unstartable(text: str) -> Trouble:
    """Read the kubelet's words about what a container needs and does not get."""
    said = f"The pod cannot start: {clip(text)}"
    low = text.lower()
    if "secret" in low and ("not found" in low or "couldn't find key" in low):
        what = "Add that key to the Secret" if "find key" in low else "Create that Secret in the resource's namespace"
        return Trouble(Reason.MISSING_SECRET, f"{said} {what}, {_HEALS}")
    if "configmap" in low and ("not found" in low or "couldn't find key" in low or "non-existent" in low):
        what = "Create that ConfigMap, with the key that the spec names, in the resource's namespace"
        return Trouble(Reason.MISSING_CONFIG_MAP, f"{said} {what}, {_HEALS}")
    return Trouble(Reason.CONFIG_ERROR, f"{said} Repair that, {_HEALS}")


_SHORT = re.compile(r"Insufficient ([a-zA-Z0-9./_-]*[a-zA-Z0-9])")
_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" (?:not found|is being deleted)|unbound immediate PersistentVol')


def _unschedulable(text: str) -> Trouble:
    """Read the scheduler's words: which resource is short, or what keeps the pod from every node."""
    said = clip(text) or "the scheduler gave no reason."
    if claim := _CLAIM.search(text):
        what = f"PersistentVolumeClaim {claim[1]}" if claim[1] else "PersistentVolumeClaim, or a volume for it,"
        return Trouble(
            Reason.MISSING_VOLUME_CLAIM,
            f"The pod waits for its volume: {said} Create the {what} in the resource's namespace, {_HEALS}",
        )
    short = list(dict.fromkeys(_SHORT.findall(text)))
    if short:
        names = " and ".join(short)
        return Trouble(
            Reason.UNSCHEDULABLE,
            f"No node takes the pod: too little {names} is free. Wait, add a node, or ask for less. Scheduler: {said}",
        )
    steps = [step for words, step in _STEPS if words in text]
    step = f" {steps[0]}" if steps else ""
    return Trouble(Reason.UNSCHEDULABLE, f"No node takes the pod: {said}{step}")


_STEPS = (
    ("untolerated taint", "Name tolerations for that taint, or take it off a node."),
    ("node affinity/selector", "Correct nodeSelector, or label a node so."),
    ("no nodes available", "Add a node."),
    ("unschedulable", "Uncordon a node, or add one."),
)


def refusal(text: str) -> Trouble:
    """Return what an Event means that says why a pod could not be made, or could not mount its volumes."""
    said = clip(re.sub(r"^Error creating: ", "", text))
    low = text.lower()
    if account := re.search(r'serviceaccount "([^"]+)" not found', text):
        what = f"Create the ServiceAccount {account[1]} in the resource's namespace, or correct serviceAccountName"
        return Trouble(Reason.MISSING_SERVICE_ACCOUNT, f"The pod cannot be made: {said} {what}.")
    if "exceeded quota" in low:
        what = "Free some of that quota, have it raised, or ask for less"
        return Trouble(Reason.QUOTA_EXCEEDED, f"The namespace's quota leaves no room: {said} {what}.")
    if "mountvolume" in low or "failedmount" in low or low.startswith(("configmap", "secret")):
        return _unstartable(text)
    what = next((step for words, step in _RULES if words in low), "Change the spec, or have that rule changed")
    return Trouble(Reason.POD_REFUSED, f"The cluster refuses the pod: {said} {what}.")


_RULES = (
    ("violates podsecurity", "Have the namespace's pod-security label changed; Luthier's pods satisfy `restricted`"),
    ("must specify", "Name those requests or limits in resources and prepareResources"),
    ("usage per", "Name requests and limits within that range in resources and prepareResources"),
    ("no priorityclass", "Create that PriorityClass, or correct priorityClassName"),
    ("admission webhook", "Ask whoever runs that webhook, or change what it names in the spec"),
)


def clip(text: str, longest: int = _LONGEST) -> str:
    """Return the text as the end of a sentence, on one line, not longer than a person reads."""
    line = " ".join(printable(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return line if not line or line.endswith((".", "…", "!", "?")) else line + "."
