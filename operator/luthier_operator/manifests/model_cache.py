"""The cache of base models: a PersistentVolumeClaim that prepare and train pods share, if the operator has one set.

Each namespace has a claim of that name of its own. What lies in it is the trainer's.
"""

from typing import Any

from luthier_api.documents import MODEL_CACHE_VARIABLE
from luthier_operator.model.defaults import Defaults

_FOLDER = "/var/cache/luthier/models"
_VOLUME = "model-cache"


def mount(pod: dict[str, Any], defaults: Defaults) -> None:
    """Give a pod the cache, if there is one."""
    if not defaults.model_cache_claim:
        return
    (container,) = pod["containers"]
    container["env"].append({"name": MODEL_CACHE_VARIABLE, "value": _FOLDER})
    container["volumeMounts"].append({"name": _VOLUME, "mountPath": _FOLDER})
    pod["volumes"].append({"name": _VOLUME, "persistentVolumeClaim": {"claimName": defaults.model_cache_claim}})
    if defaults.assign_user:
        # Else the kubelet would set the group of every file each time that a pod starts.
        pod["securityContext"] = {**pod["securityContext"], "fsGroupChangePolicy": "OnRootMismatch"}
