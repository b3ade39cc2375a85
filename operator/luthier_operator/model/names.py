"""Every name and label that the operator gives, in one place; all deterministic, none longer than 63 characters.

Deterministic names are what makes a plan safe to run twice: whoever runs it a second time finds what the first made.
Pure; used by plan, manifests and the reader of observed objects.
"""

import hashlib
from typing import Literal

from luthier_api import GROUP

Stage = Literal["prepare", "train"]
"""The two Jobs of a run."""
Component = Literal["prepare", "train", "predict", "prune", "remove"]
"""What a Job is for: `predict` of a BatchPrediction, the others of a FineTuneJob. Those that take versions out of
storage belong to no run: `prune` those over the limit, and `remove` all at the end of the resource."""
REMOVALS: tuple[Component, ...] = ("prune", "remove")

MAX_NAME = 63
_HASH = 10
# "-" + hash + "-prepare", the longest thing that follows a FineTuneJob's name.
_MAX_PREFIX = MAX_NAME - 1 - _HASH - len("-prepare")
# Likewise with "-train-63", the host name of the last of 64 pods.
_MAX_LABEL_PREFIX = MAX_NAME - 1 - _HASH - len("-train-63")
# And with "-predict-999", the last of 1000 workers.
_MAX_BATCH_PREFIX = MAX_NAME - 1 - _HASH - len("-predict-999")

FIELD_MANAGER = "luthier"

MANAGED_BY = "app.kubernetes.io/managed-by"
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
FINETUNEJOB = f"{GROUP}/finetunejob"
MODELDEPLOYMENT = f"{GROUP}/modeldeployment"
BATCHPREDICTION = f"{GROUP}/batchprediction"
RUN = f"{GROUP}/run"

SPEC_HASH = f"{GROUP}/spec-hash"
RUN_KEY = f"{GROUP}/run-key"
WEIGHTS_VERSION = f"{GROUP}/weights-version"
RUN_DOCUMENT = f"{GROUP}/run-document"
OWNER_UID = f"{GROUP}/owner-uid"
"""Annotation of a Job that must outlive the garbage collection of its resource, and so has no owner reference."""

CLUSTER_HASH = f"{GROUP}/cluster-hash"
"""Annotation of a RayService: the hash of what makes KubeRay build another Ray cluster."""
PREVIOUS = f"{GROUP}/previous-revision"
"""Annotation of a RayService: the revision to return to if the present one fails and none runs beside it."""
REVISION = f"{GROUP}/revision"
"""Annotation of a worker's pod whose Ray cluster was built for one revision (BlueGreen)."""

SUSPENDED = f"{GROUP}/suspended"
"""Annotation of a Job that the operator has suspended: how often it had to. Without it, somebody else has."""

FINALIZER = f"{GROUP}/artifacts"

# Kueue's: the LocalQueue of a Job, and on a Workload the uid of its Job.
KUEUE = "kueue.x-k8s.io"
QUEUE = f"{KUEUE}/queue-name"
QUEUED_JOB = f"{KUEUE}/job-uid"

GPU = "nvidia.com/gpu"
CONTAINER = "main"
"""The container of a Job's pod that Luthier makes; admission may put others beside it."""

MANAGED_SELECTOR = f"{MANAGED_BY}={FIELD_MANAGER}"
SERVER = "server"


def fit(name: str, limit: int) -> str:
    """Return the name, or one of `limit` characters that still differs wherever the names do."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-.')}-{digest}"


def label(name: str, limit: int) -> str:
    """Return the name as one DNS label of at most `limit` characters that still differs wherever the names do."""
    if "." not in name:
        return fit(name, limit)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].replace('.', '-').rstrip('-')}-{digest}"


def run_name(finetunejob: str, run_hash: str, nodes: int = 1) -> str:
    """Return the name of a run, which leaves room for the names of its Jobs.

    A pod of an Indexed Job has the Job's name and its index for its host name, which must be one DNS label.
    """
    prefix = fit(finetunejob, _MAX_PREFIX) if nodes == 1 else label(finetunejob, _MAX_LABEL_PREFIX)
    return f"{prefix}-{run_hash[:_HASH]}"


def batch_run_name(batchprediction: str, run_hash: str) -> str:
    """Return the name of a run of a BatchPrediction, whose Job is an Indexed one."""
    return f"{label(batchprediction, _MAX_BATCH_PREFIX)}-{run_hash[:_HASH]}"


def job_name(run: str, stage: Component) -> str:
    """Return the name of one of a run's Jobs."""
    return f"{run}-{stage}"


def removal_name(finetunejob: str, digest: str, component: Component) -> str:
    """Return the name of a Job that takes versions out of storage; the digest is over what makes it another one."""
    return f"{fit(finetunejob, _MAX_PREFIX)}-{digest[:_HASH]}-{component}"


def rendezvous_service(finetunejob: str, uid: str) -> str:
    """Return the name of the headless Service by which the pods of a run on several nodes find each other.

    A DNS label that begins with a letter. The uid is in it: what a deleted resource of the same name leaves behind is
    not taken for one's own while the garbage collector is still at it.
    """
    digest = hashlib.sha256(uid.encode()).hexdigest()[:_HASH]
    return f"rdzv-{label(finetunejob, MAX_NAME - len('rdzv-') - 1 - _HASH)}-{digest}"


def revision_name(args_hash: str) -> str:
    """Return the name of a revision's Ray Serve application, from the hash of all its arguments.

    Ray replaces the replicas of an application whose arguments change, with a gap when there is only one. So other
    arguments are another application, started beside the old one.
    """
    return f"rev-{args_hash[:_HASH]}"


def serve_service(modeldeployment: str) -> str:
    """Return the name of the Service that KubeRay keeps in front of a RayService, whatever cluster is behind it."""
    return f"{modeldeployment}-serve-svc"


def grpc_service(modeldeployment: str) -> str:
    """Return the name of the Service in front of a server that speaks gRPC."""
    return f"{modeldeployment}-grpc"


def labels(component: str, **more: str) -> dict[str, str]:
    """Return the labels of every object that the operator makes."""
    return {MANAGED_BY: FIELD_MANAGER, PART_OF: FIELD_MANAGER, COMPONENT: component, **more}
