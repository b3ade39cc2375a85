"""The PersistentVolumeClaims that a run reads from: pvc://claim/path, mounted read-only under the claim's own name.

A pod can only mount claims of its own namespace, which is the resource's. Each stage is given what it reads and no
more, because a claim that one node holds keeps the pod to that node.
"""

from typing import Any

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.storage import CLAIMS_DIR, claim_of
from luthier_operator.model.names import Stage


def claims(spec: FineTuneJobSpec, stage: Stage) -> list[str]:
    """Return the claims that a stage reads from. train begins with what prepare made of the data."""
    data = [file.uri for file in spec.dataset.files()] if stage == "prepare" else []
    found = (claim_of(uri) for uri in (spec.model.uri, *data))
    return sorted({claim for claim in found if claim})


def volumes(spec: FineTuneJobSpec, stage: Stage) -> list[dict[str, Any]]:
    """Return the pod's volumes. Read-only also for the kubelet, which else would change the owner of every file."""
    return [
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for number, claim in enumerate(claims(spec, stage))
    ]


def mounts(spec: FineTuneJobSpec, stage: Stage) -> list[dict[str, Any]]:
    """Return the container's mounts of those volumes."""
    return [
        {"name": f"claim-{number}", "mountPath": f"{CLAIMS_DIR}/{claim}", "readOnly": True}
        for number, claim in enumerate(claims(spec, stage))
    ]
