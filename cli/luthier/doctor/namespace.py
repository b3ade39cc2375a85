"""What the resources of a namespace refer to, and which of them are stalled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from urllib.parse import quote

from luthier.cluster import Cluster
from luthier.doctor.rows import Level, Row, guarded, ok
from luthier.errors import NotFound
from luthier.kinds import BATCHPREDICTION, FINETUNEJOB, MODELDEPLOYMENT, Resource
from luthier_api.reasons import ConditionType

# The parts of a spec whose Secret has S3 keys for certain; those of base models and datasets may be a hub's.
_PLACES = {FINETUNEJOB: ("output",), MODELDEPLOYMENT: ("model",), BATCHPREDICTION: ("output", "model", "input")}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def namespace_rows(cluster: Cluster) -> Iterator[Row]:
    """Return a row for each Secret and queue that a resource names, and for each resource that is stalled."""
    resources: list[Resource] = []
    yield from guarded("resources", lambda: _resources(cluster, resources))
    for secret, user in sorted(_secrets(resources).items()):
        yield from guarded(f"Secret {secret}", partial(_secret, cluster, secret, user))
    for queue, user in sorted(_queues(resources).items()):
        yield from guarded(f"LocalQueue {queue}", partial(_queue, cluster, queue, user))


def _resources(cluster: Cluster, found: list[Resource]) -> Iterator[Row]:
    found += cluster.every()
    stalled = [resource for resource in found if resource.is_true(ConditionType.STALLED)]
    for resource in stalled:
        condition = resource.condition(ConditionType.STALLED)
        message = f"{condition.reason}: {condition.message}" if condition else "is stalled"
        yield Row(resource.title, Level.WARN, message, f"luthier status {resource.name} -v")
    unseen = [resource for resource in found if not resource.status.observed_generation]
    for resource in unseen:
        fix = "see the operator's row; with watchNamespaces, it must name this namespace"
        yield Row(resource.title, Level.FAIL, "no operator has looked at it", fix)
    if not stalled and not unseen:
        yield ok("resources", f"{len(found)} in {cluster.namespace}, none of them stalled")


def _secrets(resources: list[Resource]) -> dict[str, str]:
    """Return {name of a Secret with S3 keys: who names it first}."""
    found: dict[str, str] = {}
    for resource in resources:
        for place in _PLACES[resource.kind]:
            if name := (resource.spec.get(place, {}).get("secretRef") or {}).get("name"):
                found.setdefault(str(name), resource.title)
    return found


def _secret(cluster: Cluster, name: str, user: str) -> Iterator[Row]:
    """Look at the names of a Secret's keys; its values come along, and are dropped here."""
    try:
        keys = set(cluster.get(f"{cluster.in_namespace('secrets')}/{quote(name)}").get("data") or {})
    except NotFound:
        arguments = " ".join(f"--from-literal={key}=..." for key in _KEYS)
        fix = f"kubectl create secret generic {name} -n {cluster.namespace} {arguments}"
        yield Row(f"Secret {name}", Level.FAIL, f"does not exist; {user} names it", fix)
        return
    if missing := [key for key in _KEYS if key not in keys]:
        fix = f"add it: docs/storage.md#the-secret; the Secret has: {', '.join(sorted(keys)) or 'no keys'}"
        yield Row(f"Secret {name}", Level.FAIL, f"has no key {' and no key '.join(missing)}", fix)
        return
    yield ok(f"Secret {name}", "has the keys that S3 needs")


def _queues(resources: list[Resource]) -> dict[str, str]:
    named = {resource.spec.get("queueName"): resource.title for resource in resources}
    return {str(queue): title for queue, title in named.items() if queue}


def _queue(cluster: Cluster, name: str, user: str) -> Iterator[Row]:
    for version in ("v1beta2", "v1beta1"):
        try:
            cluster.get(f"{cluster.in_namespace('localqueues', f'apis/kueue.x-k8s.io/{version}')}/{quote(name)}")
        except NotFound:
            continue
        yield ok(f"LocalQueue {name}", "exists")
        return
    fix = "create it, or choose another one: kubectl get localqueues (docs/queues.md)"
    yield Row(f"LocalQueue {name}", Level.FAIL, f"does not exist; {user} names it", fix)
