"""Why a pod does not start although nothing has failed: what is wrong, and what to do next, in a sentence or two.

Everything here may be repaired without an edit of the resource, so nothing here ends a run. Three parts of Kubernetes
report: the kubelet in the waiting state of the container, the scheduler in the condition PodScheduled, and Events about
a pod that was never created or never mounted its volumes. Reads views and text, decides nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from luthier_api.reasons import Reason
from luthier_operator.manifests.access import CREDENTIALS_VOLUME
from luthier_operator.model.sanitize import printable
from luthier_operator.model.views import PodView

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# A kubelet's message may quote a whole registry answer.
_LONGEST = 700
_LOST_WITH_NODE = {"DeletionByTaintManager", "DeletionByPodGC"}


@dataclass(frozen=True)
class Diagnosis:
    """Why a pod does not start, although nothing has failed yet."""

    reason: Reason
    message: str


def diagnose(pods: Iterable[PodView]) -> Diagnosis | None:
    """Return why the first of these pods that does not start does not."""
    found = (_of(pod) for pod in pods if not pod.ended)
    return next((diagnosis for diagnosis in found if diagnosis), None)


def _of(pod: PodView) -> Diagnosis | None:
    if pod.deleting:
        return _lost(pod) if pod.disruption_reason in _LOST_WITH_NODE and pod.node else None
    if pod.waiting_reason in _IMAGE:
        kubelet = clip(pod.waiting_message or pod.waiting_reason)
        return Diagnosis(
            Reason.IMAGE_PULL_FAILED,
            f"The image cannot be pulled: {kubelet} Correct its name, or set imagePullSecrets that may pull it.",
        )
    if pod.waiting_reason in _CONFIG:
        return _unstartable(pod.waiting_message or pod.waiting_reason)
    if pod.unschedulable is not None and not pod.ip:
        return _unschedulable(pod.unschedulable)
    return None


def _lost(pod: PodView) -> Diagnosis:
    """Kubernetes does not know whether such a pod still runs, so it starts no other: two must never train."""
    return Diagnosis(
        Reason.NODE_LOST,
        f"The node {pod.node} does not respond, so it is unknown whether the pod {pod.name} still runs there. The run "
        f"continues when the node is back. If it is gone for good: kubectl delete node {pod.node}.",
    )


_THEN = "and the run continues by itself."
_NO_SECRET = "Create that Secret in the resource's namespace"
# For a key that is missing, the kubelet names the volume and not the Secret.
_KEYS_OF = re.compile(rf'volume "{CREDENTIALS_VOLUME}(\w+)"')


def _unstartable(text: str) -> Diagnosis:
    """Return what the kubelet's message about something that a container needs and does not get means."""
    start = f"The pod cannot start: {clip(text)}"
    low = text.lower()
    lacks_key = "non-existent secret key" in low or ("secret" in low and "couldn't find key" in low)
    if lacks_key or ("secret" in low and "not found" in low):
        volume = _KEYS_OF.search(text)
        whose = f" that {volume[1]}.secretRef names" if volume else ""
        what = f"Add that key to the Secret{whose}" if lacks_key else _NO_SECRET
        return Diagnosis(Reason.MISSING_SECRET, f"{start} {what}, {_THEN}")
    if "configmap" in low and ("not found" in low or "couldn't find key" in low or "non-existent" in low):
        what = "Create that ConfigMap, with the key that the spec names, in the resource's namespace"
        return Diagnosis(Reason.MISSING_CONFIG_MAP, f"{start} {what}, {_THEN}")
    return Diagnosis(Reason.CONFIG_ERROR, f"{start} Correct that, {_THEN}")


_SHORT = re.compile(r"Insufficient ([a-zA-Z0-9./_-]*[a-zA-Z0-9])")
_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" (?:not found|is being deleted)|unbound immediate PersistentVol')


def _unschedulable(text: str) -> Diagnosis:
    """Return what the scheduler's message means: which resource is short, or what keeps the pod from every node."""
    scheduler = clip(text) or "the scheduler gave no reason."
    if claim := _CLAIM.search(text):
        what = f"PersistentVolumeClaim {claim[1]}" if claim[1] else "PersistentVolumeClaim, or a volume for it,"
        return Diagnosis(
            Reason.MISSING_VOLUME_CLAIM,
            f"The pod waits for its volume: {scheduler} Create the {what} in the resource's namespace, {_THEN}",
        )
    short = list(dict.fromkeys(_SHORT.findall(text)))
    if short:
        names = " and ".join(short)
        return Diagnosis(
            Reason.UNSCHEDULABLE,
            f"No node can run the pod: not enough {names} is free. Wait, add a node, or request less. "
            f"The scheduler reports: {scheduler}",
        )
    remedy = next((f" {remedy}" for phrase, remedy in _UNSCHEDULABLE_REMEDIES if phrase in text), "")
    return Diagnosis(Reason.UNSCHEDULABLE, f"No node can run the pod: {scheduler}{remedy}")


_UNSCHEDULABLE_REMEDIES = (
    ("untolerated taint", "Set tolerations for that taint, or remove it from a node."),
    ("node affinity/selector", "Correct nodeSelector, or label a node to match it."),
    ("no nodes available", "Add a node."),
    ("unschedulable", "Uncordon a node, or add one."),
)


def diagnose_event(text: str, resources: str = "resources and prepareResources") -> Diagnosis:
    """Return what an Event means that says why a pod could not be created, or could not mount its volumes.

    Args:
        text: its message.
        resources: the fields of the spec that set the pod's requests and limits.
    """
    message = clip(re.sub(r"^Error creating: ", "", text))
    low = text.lower()
    if account := re.search(r'serviceaccount "([^"]+)" not found', text):
        what = f"Create the ServiceAccount {account[1]} in the resource's namespace, or correct serviceAccountName"
        return Diagnosis(Reason.MISSING_SERVICE_ACCOUNT, f"The pod cannot be created: {message} {what}.")
    if "exceeded quota" in low:
        what = "Free some of that quota, have it raised, or request less"
        return Diagnosis(Reason.QUOTA_EXCEEDED, f"The namespace's quota leaves no room: {message} {what}.")
    if "mountvolume" in low or "failedmount" in low or low.startswith(("configmap", "secret")):
        return _unstartable(text)
    what = next((remedy for phrase, remedy in _ADMISSION_REMEDIES if phrase in low), _ANY_RULE)
    what = what.replace("RESOURCES", resources)
    return Diagnosis(Reason.POD_REFUSED, f"The cluster refuses the pod: {message} {what}.")


_ANY_RULE = "Change the spec, or have that rule changed"
_ADMISSION_REMEDIES = (
    ("violates podsecurity", "Have the namespace's pod-security label changed; Luthier's pods satisfy `restricted`"),
    ("must specify", "Set those requests or limits in RESOURCES"),
    ("usage per", "Set requests and limits within that range in RESOURCES"),
    ("no priorityclass", "Create that PriorityClass, or correct priorityClassName"),
    ("admission webhook", "Ask whoever runs that webhook, or change in the spec what it rejects"),
)


def clip(text: str, longest: int = _LONGEST) -> str:
    """Return the text as the end of a sentence, on one line, not longer than a person reads."""
    line = " ".join(printable(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return line if not line or line.endswith((".", "…", "!", "?")) else line + "."
