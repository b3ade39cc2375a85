"""What the cluster as a whole must have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from luthier.cluster import Cluster
from luthier.doctor.rows import Level, Row, guarded, ok
from luthier.errors import NotFound
from luthier.kinds import KINDS, Raw
from luthier_api import GROUP, VERSION
from luthier_api.schema import crds

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_VERSION_LABEL = "app.kubernetes.io/version"
_OPERATOR = "app.kubernetes.io/name=luthier,app.kubernetes.io/component=operator"
_KUBERAY = "app.kubernetes.io/name=kuberay-operator"
_GPU = "nvidia.com/gpu"
_INSTALL = "helm install luthier charts/luthier -n luthier-system --create-namespace (docs/install.md)"
# What a data scientist does, and what each is needed for.
_RIGHTS = (
    ("create", "finetunejobs", GROUP, "to train"),
    ("patch", "finetunejobs", GROUP, "to edit, retry and suspend"),
    ("create", "modeldeployments", GROUP, "to serve"),
    ("patch", "modeldeployments", GROUP, "to steer a rollout"),
    ("create", "batchpredictions", GROUP, "to predict files"),
    ("patch", "batchpredictions", GROUP, "to edit, retry and suspend"),
    ("list", "pods", "", "for status -v and logs"),
    ("get", "pods/log", "", "for logs"),
    ("list", "events", "", "for status -v"),
    ("create", "services/proxy", "", "for predict"),
)


def cluster_rows(cluster: Cluster) -> Iterator[Row]:
    """Return a row for each thing; only the first one if the API server does not answer."""
    reachable = list(guarded("API server", lambda: _api_server(cluster)))
    yield from reachable
    if any(row.level is Level.FAIL for row in reachable):
        return
    yield from guarded("CRDs", lambda: _crds(cluster))
    yield from guarded("operator", lambda: _operator(cluster))
    yield from guarded("your rights", lambda: _rights(cluster))
    yield from guarded("GPUs", lambda: _gpus(cluster))
    yield from guarded("KubeRay", lambda: _kuberay(cluster))
    yield from guarded("Kueue", lambda: _kueue(cluster))


def _api_server(cluster: Cluster) -> Iterator[Row]:
    version = cluster.get("/version")
    yield ok("API server", f"{cluster.server} answers, Kubernetes {version.get('gitVersion', '?')}")


def _crds(cluster: Cluster) -> Iterator[Row]:
    contract = {crd["metadata"]["name"]: crd for crd in crds().values()}
    for kind in KINDS:
        name = f"{kind.plural}.{GROUP}"
        found = _crd(cluster, name)
        if found is None:
            yield Row(f"CRD {kind.name}", Level.FAIL, "is not installed", _INSTALL)
            continue
        if not _established(found):
            yield Row(f"CRD {kind.name}", Level.FAIL, "is not established", f"kubectl describe crd {name}")
            continue
        yield _crd_row(kind.name, name, found, contract[name])


def _crd_row(kind: str, name: str, found: Raw, ours: Raw) -> Row:
    """Compare the fields of the CRD in the cluster with those that this release of the command knows."""
    theirs, known = (_fields(_schema(each)) for each in (found, ours))
    release = found["metadata"].get("labels", {}).get(_VERSION_LABEL, "")
    said = f"release {release}" if release else "installed"
    if missing := sorted(known - theirs):
        fields = ", ".join(missing[:3])
        fix = (
            "upgrade the CRDs with the chart: helm upgrade keeps old ones unless crds.install is true (docs/install.md)"
        )
        return Row(f"CRD {kind}", Level.WARN, f"{said}, older than this command: it lacks {fields}", fix)
    if added := sorted(theirs - known):
        fix = "upgrade this command, from a checkout of that release (docs/cli.md)"
        return Row(f"CRD {kind}", Level.INFO, f"{said}, newer than this command: it has {', '.join(added[:3])}", fix)
    return ok(f"CRD {kind}", said)


def _operator(cluster: Cluster) -> Iterator[Row]:
    deployments = cluster.list("/apis/apps/v1/deployments", _OPERATOR)
    if not deployments:
        yield Row("operator", Level.FAIL, "is not installed", _INSTALL)
        return
    crd = _crd(cluster, f"{KINDS[0].plural}.{GROUP}")
    release = (crd or {}).get("metadata", {}).get("labels", {}).get(_VERSION_LABEL, "")
    for deployment in deployments:
        metadata, status = deployment["metadata"], deployment.get("status", {})
        where = f"{metadata['namespace']}/{metadata['name']}"
        own = metadata.get("labels", {}).get(_VERSION_LABEL, "?")
        if not status.get("readyReplicas"):
            fix = f"kubectl -n {metadata['namespace']} describe deployment {metadata['name']}; kubectl logs says more"
            yield Row(
                "operator", Level.FAIL, f"{where} is not running: 0 of {status.get('replicas', 0)} pods ready", fix
            )
        elif release and own != release:
            fix = "upgrade both with the same chart"
            yield Row("operator", Level.WARN, f"{where} is release {own}, the CRDs are of {release}", fix)
        else:
            yield ok("operator", f"{where} runs, release {own}")


def _rights(cluster: Cluster) -> Iterator[Row]:
    refused = [
        f"{verb} {resource} ({purpose})"
        for verb, resource, group, purpose in _RIGHTS
        if not cluster.may(verb, resource, group)
    ]
    if refused:
        fix = (
            f"kubectl create rolebinding NAME -n {cluster.namespace} --clusterrole=edit --user=YOU; "
            "the chart adds its kinds to the roles edit and view"
        )
        ours = [row for row in refused if any(f" {kind.plural} " in row for kind in KINDS)]
        level = Level.FAIL if len(ours) == sum(group == GROUP for _, _, group, _ in _RIGHTS) else Level.WARN
        yield Row("your rights", level, f"in {cluster.namespace} you may not {'; '.join(refused)}", fix)
        return
    yield ok("your rights", f"all that this command needs in {cluster.namespace}")


def _gpus(cluster: Cluster) -> Iterator[Row]:
    nodes = cluster.list("/api/v1/nodes")
    allocatable = {node["metadata"]["name"]: int(_allocatable(node).get(_GPU, 0)) for node in nodes}
    total = sum(allocatable.values())
    if total:
        having = sum(count > 0 for count in allocatable.values())
        yield ok("GPUs", f"{total} of {_GPU} on {having} of {len(nodes)} nodes")
        return
    fix = (
        "install NVIDIA's device plugin, or train on the CPU: gpusPerNode: 0 (nodes that scale from zero: ignore this)"
    )
    yield Row("GPUs", Level.WARN, f"none of {len(nodes)} nodes offers {_GPU}", fix)


def _kuberay(cluster: Cluster) -> Iterator[Row]:
    if _crd(cluster, "rayservices.ray.io") is None:
        fix = "install the KubeRay operator (docs/install.md); training works without it"
        yield Row("KubeRay", Level.FAIL, "is not installed, so that no ModelDeployment can be served", fix)
        return
    deployments = cluster.list("/apis/apps/v1/deployments", _KUBERAY)
    if not any(deployment.get("status", {}).get("readyReplicas") for deployment in deployments):
        fix = "start the KubeRay operator; one that is named otherwise is not seen here"
        yield Row("KubeRay", Level.WARN, "has its CRDs, but no operator of it is running", fix)
        return
    yield ok("KubeRay", "installed and running")


def _kueue(cluster: Cluster) -> Iterator[Row]:
    if _crd(cluster, "localqueues.kueue.x-k8s.io") is None:
        yield Row("Kueue", Level.INFO, "is not installed, which only spec.queueName needs")
    else:
        yield ok("Kueue", "installed")


def _crd(cluster: Cluster, name: str) -> Raw | None:
    try:
        return cluster.get(f"{_CRDS}/{name}")
    except NotFound:
        return None


def _established(crd: Raw) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def _schema(crd: Raw) -> Raw:
    versions = [each for each in crd["spec"]["versions"] if each["name"] == VERSION]
    found: Raw = versions[0].get("schema", {}).get("openAPIV3Schema", {}) if versions else {}
    return dict(found.get("properties", {}).get("spec", {}))


def _fields(schema: Any, path: str = "spec") -> set[str]:
    """Return the paths of all fields below a schema."""
    if not isinstance(schema, dict):
        return set()
    found: set[str] = set()
    for name, child in (schema.get("properties") or {}).items():
        found |= {f"{path}.{name}"} | _fields(child, f"{path}.{name}")
    return found | _fields(schema.get("items"), path)


def _allocatable(node: Raw) -> Raw:
    return dict(node.get("status", {}).get("allocatable") or {})
