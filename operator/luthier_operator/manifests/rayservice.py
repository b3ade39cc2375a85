"""The RayService of a ModelDeployment: one Ray cluster, and on it the front and the live revisions.

A changed `serveConfigV2` is applied in place; a changed `rayClusterConfig` makes KubeRay build a second cluster beside
the first and switch. So nothing about a model's version may stand in the cluster's part, and `cluster_config` is not
even given one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier_api.documents import SERVE_PORT, FrontConfig, RevisionConfig, Route
from luthier_api.keys import digest_of
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_operator.manifests import access, pods
from luthier_operator.manifests.access import Grant
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.views import Meta

API_VERSION = "ray.io/v1"
KIND = "RayService"
CACHE_DIR = "/var/cache/luthier"
# A replica takes one of two slots, and a pod holds at most one replica of a revision: so the pods of the revision in
# service have room for the next one, which starts beside it without waiting for a pod.
_SLOTS_PER_POD = "2"
_OBJECT_STORE_BYTES = "100000000"


@dataclass(frozen=True)
class Application:
    """A revision as it stands, or is to stand, in serveConfigV2."""

    name: str
    version: str
    args: Mapping[str, Any]


def revision(
    spec: ModelDeploymentSpec, *, version: str, uri: str, digest: str, grant: Grant, retry: str
) -> Application:
    """Return the application that serves a version with these settings; other settings are another name.

    `retry` is the user's annotation: a new value makes a revision that failed another one, which is tried.
    """
    runtime = spec.runtime
    config = RevisionConfig(
        name="",
        model_uri=uri,
        version=version,
        digest=digest,
        access=grant.access,
        engine=runtime.engine,
        gpus_per_replica=runtime.gpus_per_replica,
        max_batch_tokens=runtime.max_batch_tokens,
    )
    args = config.to_wire()
    name = names.revision_name(digest_of({**args, "retry": retry}))
    return Application(name, version, {**args, "name": name})


def serve_config(
    owner: Meta, spec: ModelDeploymentSpec, applications: Sequence[Application], weights: Mapping[str, int]
) -> str:
    """Return serveConfigV2: the front, and one application per revision."""
    front = FrontConfig(
        model_name=owner.name,
        routes=[Route(revision=a.name, version=a.version, weight=weights.get(a.name, 0)) for a in applications],
        max_batch_wait_ms=spec.runtime.max_batch_wait_ms,
        max_queued_requests=spec.runtime.max_queued_requests,
    )
    entries = [
        {
            "name": names.FRONT,
            "import_path": "luthier_serving.front:app",
            "route_prefix": "/",
            "args": {},
            "deployments": [{"name": "Front", "user_config": front.to_wire()}],
        },
        *(
            {
                "name": application.name,
                "import_path": "luthier_serving.revision:app",
                "route_prefix": None,
                "args": dict(application.args),
                "deployments": [{"name": "Revision", **_scale(spec)}],
            }
            for application in applications
        ),
    ]
    return json.dumps(
        {
            "proxy_location": "EveryNode",
            "http_options": {"host": "0.0.0.0", "port": SERVE_PORT, "keep_alive_timeout_s": 90},
            "logging_config": {"encoding": "JSON", "log_level": "INFO", "enable_access_log": False},
            "applications": entries,
        },
        sort_keys=True,
    )


def read_serve_config(text: str) -> tuple[list[Application], dict[str, int]]:
    """Return the revisions of a serveConfigV2 that `serve_config` made, and the weight of each."""
    if not text:
        return [], {}
    entries = json.loads(text)["applications"]
    front = next(entry for entry in entries if entry["name"] == names.FRONT)
    weights = {
        route["revision"]: int(route["weight"]) for route in front["deployments"][0]["user_config"].get("routes", [])
    }
    found = [
        Application(entry["name"], entry["args"]["version"], entry["args"])
        for entry in entries
        if entry["name"] != names.FRONT
    ]
    return found, weights


def _scale(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """Return the options that scale a revision; in `args` a change of them would replace the replicas."""
    if spec.autoscaling is None:
        return {"num_replicas": spec.replicas or 1}
    scaling = spec.autoscaling
    return {
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_ongoing_requests,
            "upscale_delay_s": scaling.upscale_delay_seconds,
            "downscale_delay_s": scaling.downscale_delay_seconds,
        }
    }


def rayservice(
    owner: Meta, spec: ModelDeploymentSpec, *, config: str, grant: Grant, defaults: Defaults
) -> dict[str, Any]:
    """Return the manifest; the annotation holds a hash of all of it, so that an unchanged one is not applied again."""
    body = {"serveConfigV2": config, "rayClusterConfig": cluster_config(owner, spec, grant, defaults)}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": owner.name,
            "namespace": owner.namespace,
            "labels": names.labels("server", **{names.MODELDEPLOYMENT: owner.name}),
            "annotations": {names.SPEC_HASH: digest_of(body)},
            "ownerReferences": [pods.owner_reference(owner)],
        },
        "spec": body,
    }


def cluster_config(owner: Meta, spec: ModelDeploymentSpec, grant: Grant, defaults: Defaults) -> dict[str, Any]:
    """Return the Ray cluster's part, in which no version of the model may stand."""
    fewest, most = _workers(spec)
    config: dict[str, Any] = {
        "rayVersion": defaults.ray_version,
        # Whoever reaches Ray's ports can run code in the pods: they are closed by a token from the first day.
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {
                "num-cpus": "0",
                "dashboard-host": "0.0.0.0",
                "object-store-memory": _OBJECT_STORE_BYTES,
            },
            "template": _head(owner, spec, defaults),
        },
        "workerGroupSpecs": [
            {
                "groupName": "replicas",
                "replicas": fewest,
                "minReplicas": fewest,
                "maxReplicas": most,
                "rayStartParams": {"num-cpus": _SLOTS_PER_POD, "object-store-memory": _OBJECT_STORE_BYTES},
                "template": _worker(owner, spec, grant, defaults),
            }
        ],
    }
    if most > fewest:
        config["enableInTreeAutoscaling"] = True
        config["autoscalerOptions"] = {
            "imagePullPolicy": defaults.image_pull_policy,
            "idleTimeoutSeconds": 60,
            "resources": {"requests": dict(defaults.autoscaler.requests), "limits": dict(defaults.autoscaler.limits)},
            "securityContext": pods.CONTAINER_SECURITY,
        }
    return config


def _workers(spec: ModelDeploymentSpec) -> tuple[int, int]:
    """Return the fewest and the most pods. Two revisions cannot share a GPU, so a rollout needs as many pods again."""
    scaling = spec.autoscaling
    fewest, most = (scaling.min_replicas, scaling.max_replicas) if scaling else (spec.replicas or 1, spec.replicas or 1)
    return fewest, most * 2 if spec.runtime.gpus_per_replica else most


def _head(owner: Meta, spec: ModelDeploymentSpec, defaults: Defaults) -> dict[str, Any]:
    """Return the head's pod: Ray's bookkeeping and the front. It gets no credentials and no GPU."""
    placed = spec.runtime.model_copy(update={"service_account_name": None, "node_selector": {}})
    limits = {"requests": dict(defaults.serve_head.requests), "limits": dict(defaults.serve_head.limits)}
    container = {**_container("ray-head", spec, defaults), "resources": limits}
    fewest, most = _workers(spec)
    pod = {
        "containers": [container],
        # Ray's autoscaler, which runs beside the head, asks Kubernetes for pods; nothing else here talks to it.
        "automountServiceAccountToken": most > fewest,
        **pods.placement(placed),
    }
    return _template(owner, spec, "head", pod, defaults)


def _worker(owner: Meta, spec: ModelDeploymentSpec, grant: Grant, defaults: Defaults) -> dict[str, Any]:
    """Return a worker's pod: one replica of each live revision."""
    runtime = spec.runtime
    container = {
        **_container("ray-worker", spec, defaults),
        "env": pods.environment(defaults, [{"name": "LUTHIER_CACHE", "value": CACHE_DIR}]),
        "resources": pods.resources(runtime.resources, defaults.serve, gpus=runtime.gpus_per_replica),
        "volumeMounts": [{"name": "cache", "mountPath": CACHE_DIR}, *access.mounts([grant])],
    }
    pod = {
        "containers": [container],
        "volumes": [{"name": "cache", "emptyDir": {}}, *access.volumes([grant])],
        "automountServiceAccountToken": False,
        **pods.placement(runtime),
    }
    return _template(owner, spec, "worker", pod, defaults)


def _container(name: str, spec: ModelDeploymentSpec, defaults: Defaults) -> dict[str, Any]:
    return {
        "name": name,
        "image": spec.runtime.image or defaults.server_image,
        "imagePullPolicy": defaults.image_pull_policy,
        "securityContext": pods.CONTAINER_SECURITY,
        **({"env": pods.environment(defaults)} if defaults.pod_env else {}),
    }


def _template(
    owner: Meta, spec: ModelDeploymentSpec, component: str, pod: dict[str, Any], defaults: Defaults
) -> dict[str, Any]:
    labels = names.labels(component, **{names.MODELDEPLOYMENT: owner.name})
    metadata = pods.metadata(spec.pod_metadata, labels)
    return {"metadata": metadata, "spec": {"securityContext": pods.security(defaults), **pod}}


def hash_of(manifest: Mapping[str, Any]) -> str:
    """Return the hash that the manifest carries."""
    return str(manifest["metadata"]["annotations"][names.SPEC_HASH])
