"""What every pod that the operator makes has in common: security, placement, resources, owner.

Pods satisfy the "restricted" pod security standard and carry no Kubernetes credentials.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from luthier_api import API_VERSION
from luthier_api.pods import Placement, PodMetadata, ResourceRequirements
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults, PodResources
from luthier_operator.model.views import Meta

USER = 65532

POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_ASSIGNED = ("runAsUser", "runAsGroup", "fsGroup")
CONTAINER_SECURITY: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def security(defaults: Defaults) -> dict[str, Any]:
    """Return the security context of a pod."""
    return {key: value for key, value in POD_SECURITY.items() if defaults.assign_user or key not in _ASSIGNED}


def environment(defaults: Defaults, own: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return a container's variables: those that all pods get, but for what Luthier sets itself."""
    mine = [dict(each) for each in own]
    names_set = {each["name"] for each in mine}
    given = [{"name": name, "value": value} for name, value in defaults.pod_env.items() if name not in names_set]
    return [*given, *mine]


def owner_reference(owner: Meta) -> dict[str, Any]:
    """Return the reference by which the garbage collector removes an object with the resource it is for."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def resources(wanted: ResourceRequirements, default: PodResources, *, gpus: int = 0) -> dict[str, Any]:
    """Return a container's resources: the default for each one that the resource does not name, and the GPUs.

    A default that contradicts what was named gives way: a request is never above its limit.
    """
    requests = {**{k: v for k, v in default.requests.items() if k not in wanted.limits}, **wanted.requests}
    limits = {**{k: v for k, v in default.limits.items() if k not in wanted.requests}, **wanted.limits}
    # A GPU is asked for by gpusPerNode alone, so that prepare can never be given one by mistake.
    requests.pop(names.GPU, None)
    limits.pop(names.GPU, None)
    if gpus:
        limits[names.GPU] = str(gpus)
    return {name: dict(values) for name, values in (("requests", requests), ("limits", limits)) if values}


def metadata(
    wanted: PodMetadata, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the metadata of a pod: what the resource asks for, and over it what Luthier sets."""
    both = {"labels": {**wanted.labels, **labels}, "annotations": {**wanted.annotations, **(annotations or {})}}
    return {key: value for key, value in both.items() if value}


def placement(wanted: Placement) -> dict[str, Any]:
    """Return the fields of a pod spec that say where it runs and as whom."""
    chosen: Mapping[str, Any] = {
        "nodeSelector": wanted.node_selector,
        "tolerations": [toleration.to_wire() for toleration in wanted.tolerations],
        "priorityClassName": wanted.priority_class_name,
        "serviceAccountName": wanted.service_account_name,
        "imagePullSecrets": [{"name": name} for name in wanted.image_pull_secrets],
    }
    return {key: value for key, value in chosen.items() if value}
