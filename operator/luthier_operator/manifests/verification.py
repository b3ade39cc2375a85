"""How a pod is given the public keys that a version must be signed with: a ConfigMap, mounted as a folder.

As a folder and without `optional`, so that the kubelet replaces the keys when the ConfigMap changes, and starts no pod
that could not verify.
"""

from typing import Any

from luthier_api.documents import TRUSTED_KEYS_DIR
from luthier_api.modeldeployment import ServedModel

_VOLUME = "trusted-keys"


def trusted_keys(model: ServedModel) -> str | None:
    """Return the file of the keys in the pod; None if no signature is asked for."""
    return f"{TRUSTED_KEYS_DIR}/{model.verify.public_key_ref.key}" if model.verify else None


def volumes(model: ServedModel) -> list[dict[str, Any]]:
    """Return the pod's volume of the keys."""
    if model.verify is None:
        return []
    ref = model.verify.public_key_ref
    items = [{"key": ref.key, "path": ref.key}]
    return [{"name": _VOLUME, "configMap": {"name": ref.name, "items": items}}]


def mounts(model: ServedModel) -> list[dict[str, Any]]:
    """Return the container's mount of that volume."""
    return [{"name": _VOLUME, "mountPath": TRUSTED_KEYS_DIR, "readOnly": True}] if model.verify else []
