"""The Job that takes versions of a FineTuneJob out of storage, and the document that says which.

It runs what the operator itself came with: that speaks the same documents, needs nothing of what a version was trained
with, and is there when the image that the spec names is long gone.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from luthier_api.documents import Origin, Place, Removal
from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, VersionStatus
from luthier_api.keys import digest_of
from luthier_operator.manifests import pods
from luthier_operator.manifests.access import Grant
from luthier_operator.manifests.jobs import failure_rules, trainer_pod
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.names import Component
from luthier_operator.model.views import Meta

# Eight attempts, with Kubernetes' waits between them, outlast a short outage of the storage.
BACKOFF_LIMIT = 7
# Its result is read at once; its log stays for an hour.
TTL_S = 3600
_VERSION_URI = re.compile(r"(?P<uri>.+)/(?P<name>[^/]+)/versions/[^/]+")
_MAX_PLACES = 64


def places(spec: FineTuneJobSpec, versions: Sequence[VersionStatus]) -> list[Place]:
    """Return where versions may lie: where the spec puts them, and where it put those that the status remembers."""
    found = [(spec.output.uri.rstrip("/"), spec.output.name)]
    found += [(match["uri"], match["name"]) for each in versions if (match := _VERSION_URI.fullmatch(each.uri))]
    return [Place(uri=uri, name=name) for uri, name in dict.fromkeys(found)][:_MAX_PLACES]


def of_all(
    owner: Meta, spec: FineTuneJobSpec, status: FineTuneJobStatus, in_use: Collection[str], defaults: Defaults
) -> dict[str, Any]:
    """Return the manifest of the Job that removes all versions of a resource that is being deleted.

    It has no owner reference: the garbage collector may already be deleting what has one.
    """
    run = [status.current_run.run_key] if status.current_run and status.current_run.run_key else []
    run_keys = list(dict.fromkeys([*run, *(version.run_key for version in status.versions)]))
    return _job(owner, spec, "remove", places(spec, status.versions), None, in_use, run_keys, defaults)


def of_versions(
    owner: Meta,
    spec: FineTuneJobSpec,
    versions: Sequence[VersionStatus],
    in_use: Collection[str],
    defaults: Defaults,
) -> dict[str, Any]:
    """Return the manifest of the Job that removes some versions. It is owned by the resource, and deleted with it."""
    going = list(dict.fromkeys(version.version for version in versions))
    manifest = _job(owner, spec, "prune", places(spec, versions), going, in_use, [], defaults)
    manifest["metadata"]["ownerReferences"] = [pods.owner_reference(owner)]
    return manifest


def _job(
    owner: Meta,
    spec: FineTuneJobSpec,
    component: Component,
    where: list[Place],
    versions: list[str] | None,
    in_use: Collection[str],
    run_keys: list[str],
    defaults: Defaults,
) -> dict[str, Any]:
    output = Grant("output", spec.output)
    pod = trainer_pod("remove", spec, defaults.trainer_image, [output], defaults)
    origin = Origin(name=owner.name, namespace=owner.namespace, uid=owner.uid, generation=owner.generation, run="")
    document = Removal(
        places=where,
        output_access=output.access,
        origin=origin,
        versions=versions,
        in_use=sorted(in_use),
        run_keys=run_keys,
    )
    # The same request finds the same Job. An edit of how it runs, a retry, or a version that is taken into service
    # meanwhile makes another Job.
    same = document.model_copy(update={"origin": origin.model_copy(update={"generation": 0})}).to_wire()
    name = names.removal_name(owner.name, digest_of({"document": same, "pod": pod, "retry": owner.retry}), component)
    document = document.model_copy(update={"origin": origin.model_copy(update={"run": name})})
    labels = names.labels(component, **{names.FINETUNEJOB: owner.name})
    queue = {names.QUEUE: spec.queue_name} if spec.queue_name else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": {**labels, **queue},
            "annotations": {names.OWNER_UID: owner.uid},
        },
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "podFailurePolicy": {"rules": failure_rules()},
            "ttlSecondsAfterFinished": TTL_S,
            **({"suspend": True} if queue else {}),
            "template": {
                "metadata": pods.metadata(spec.pod_metadata, labels, {names.RUN_DOCUMENT: document.to_json()}),
                "spec": pod,
            },
        },
    }
