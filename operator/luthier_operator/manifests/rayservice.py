"""The RayService of a ModelDeployment: one Ray cluster, and on it the server and, during a rollout, the canary.

A changed `serveConfigV2` is applied in place; a changed `rayClusterConfig` makes KubeRay build a second cluster beside
the first and switch. So nothing about a model's version may stand in the cluster's part, and `cluster_config` is not
even given one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier_api.documents import (
    API_KEYS_DIR,
    SERVE_PORT,
    AdapterConfig,
    Mirror,
    RevisionConfig,
    Route,
    ServerConfig,
)
from luthier_api.keys import digest_of
from luthier_api.modeldeployment import ModelDeploymentSpec, Redis
from luthier_operator.manifests import access, grpc, pods, scaling, verification
from luthier_operator.manifests.access import Grant
from luthier_operator.manifests.observe import log_grant, observe_config
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.views import Meta

API_VERSION = "ray.io/v1"
KIND = "RayService"
CACHE_DIR = "/var/cache/luthier"
_API_KEYS = "api-keys"
# A replica takes one of two slots, and a pod holds at most one replica of a revision: so the pods of the revision in
# service have room for the next one, which starts beside it without waiting for a pod.
_SLOTS_PER_POD = "2"
_OBJECT_STORE_BYTES = "100000000"
# Clients that keep their connections go on asking a pod that is being deleted. For 2 s others learn that it goes; then
# HAProxy takes no new connection and closes each of the others with its next answer, while the replica still computes.
_LEAVE = """sleep 2
for p in /proc/[0-9]*; do
  if [ "$(cat $p/comm 2>/dev/null)" = haproxy ]; then kill -USR1 ${p#/proc/}; fi
done
sleep 3"""


@dataclass(frozen=True)
class Application:
    """A revision as it stands, or is to stand, in serveConfigV2."""

    name: str
    version: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """What is on the server: which revisions, computed where, and with which share of the requests.

    Attributes:
        stable: the revision that each server replica computes in its own process.
        canary: the revision that has an application of its own; the same as `stable` while the replicas load that.
        canary_weight: the canary's share of the requests in percent; the stable revision has the rest.
        window: name of the window over which requests are counted; it holds the canary's name and step.
        previous: the revision to return to where none runs beside the stable one (BlueGreen and InPlace).
    """

    stable: Application
    canary: Application | None = None
    canary_weight: int = 0
    window: str = ""
    previous: Application | None = None

    @property
    def step(self) -> int | None:
        """Number of the step that the canary is in, from 0."""
        name, _, step = self.window.partition("/")
        return int(step) if self.canary and name == self.canary.name and step.isdigit() else None

    @property
    def weights(self) -> dict[str, int]:
        """Return {revision: share of the requests}."""
        if self.canary is None or self.canary.name == self.stable.name:
            return {self.stable.name: 100}
        return {self.stable.name: 100 - self.canary_weight, self.canary.name: self.canary_weight}


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
        trusted_keys=verification.trusted_keys(spec.model),
    )
    args = config.to_wire()
    name = names.revision_name(digest_of({**args, "retry": retry}))
    return Application(name, version, {**args, "name": name})


def serve_config(owner: Meta, spec: ModelDeploymentSpec, layout: Layout, *, awake: bool = False) -> str:
    """Return serveConfigV2: the server, and the canary if there is one; `awake` keeps a replica at all times."""
    canary, rollout, limits = layout.canary, spec.rollout, spec.runtime.limits
    revisions = [layout.stable, *([canary] if canary and canary.name != layout.stable.name else [])]
    mirror = rollout.mirror if canary and canary.name != layout.stable.name and layout.step is not None else None
    stable = RevisionConfig.model_validate(dict(layout.stable.args))
    config = ServerConfig(
        model_name=owner.name,
        stable=stable,
        routes=[
            Route(
                revision=each.name,
                version=each.version,
                weight=layout.weights[each.name],
                own_application=canary is not None and each.name == canary.name,
            )
            for each in revisions
        ],
        window=layout.window,
        mirror=Mirror(revision=canary.name, percent=mirror.percent, max_pending=mirror.max_pending)
        if mirror and canary
        else None,
        sticky_header=rollout.sticky.header if rollout.sticky else None,
        header_routing=rollout.header_routing,
        replicas=max(replicas_of(spec)[0], 1),
        max_batch_wait_ms=spec.runtime.max_batch_wait_ms,
        max_queued_requests=spec.runtime.max_queued_requests,
        adapters=_adapters(spec) or None,
        request_timeout_s=limits.seconds,
        max_body_bytes=limits.body_bytes,
        max_texts=limits.texts,
        max_text_characters=limits.characters,
        allowed_origins=spec.http.cors.allow_origins if spec.http and spec.http.cors else None,
        path_prefix=spec.expose.path if spec.expose and spec.expose.path != "/" else None,
        observe=observe_config(owner.namespace, spec, stable.access),
    )
    server = {
        "name": "Server",
        "user_config": config.to_wire(),
        **scaling.scale(spec, awake=awake),
        **scaling.hold(spec),
    }
    entries: list[dict[str, Any]] = [
        {
            "name": names.SERVER,
            "import_path": "luthier_serving.server:app",
            "route_prefix": "/",
            # Not in user_config, where a server of an earlier release would pass over it and let everybody in.
            "args": {"gpusPerReplica": spec.runtime.gpus_per_replica, **({"apiKeys": True} if spec.auth else {})},
            "deployments": [server],
        },
    ]
    if canary:
        entries.append(
            {
                "name": canary.name,
                "import_path": "luthier_serving.revision:app",
                "route_prefix": None,
                "args": dict(canary.args),
                "deployments": [{"name": "Revision", **_canary_config(spec), **scaling.scale(spec, awake=True)}],
            }
        )
    return json.dumps(
        {
            "proxy_location": "EveryNode",
            "http_options": {"host": "0.0.0.0", "port": SERVE_PORT, "keep_alive_timeout_s": 90},
            **({"grpc_options": grpc.OPTIONS} if spec.runtime.grpc else {}),
            "logging_config": {"encoding": "JSON", "log_level": "INFO", "enable_access_log": False},
            "applications": entries,
        },
        sort_keys=True,
    )


def _adapters(spec: ModelDeploymentSpec) -> list[AdapterConfig]:
    return [
        AdapterConfig(name=each.name, uri=each.uri.rstrip("/"), version=version_of(each.uri), digest=each.digest)
        for each in spec.adapters
    ]


def _canary_config(spec: ModelDeploymentSpec) -> dict[str, Any]:
    adapters = [each.to_wire() for each in _adapters(spec)]
    return {"user_config": {"adapters": adapters}} if adapters else {}


def version_of(uri: str) -> str:
    """Return the version that the URI of its folder ends with."""
    return uri.rstrip("/").rpartition("/")[2]


def read_layout(text: str, previous: str = "") -> Layout | None:
    """Return what a serveConfigV2 that `serve_config` made, and the annotation beside it, put on the server.

    Returns None for one that an earlier release made, which had the stable revision in an application of its own.
    """
    entries = {entry["name"]: entry for entry in json.loads(text)["applications"]} if text else {}
    if names.SERVER not in entries:
        return None
    config = entries[names.SERVER]["deployments"][0]["user_config"]
    routes = {route["revision"]: int(route["weight"]) for route in config.get("routes", [])}
    canary = next((_application(entry["args"]) for name, entry in entries.items() if name != names.SERVER), None)
    return Layout(
        stable=_application(config["stable"]),
        canary=canary,
        canary_weight=routes.get(canary.name, 0) if canary else 0,
        window=config.get("window", ""),
        previous=_application(json.loads(previous)) if previous else None,
    )


def _application(args: Mapping[str, Any]) -> Application:
    return Application(args["name"], args["version"], args)


def rayservice(
    owner: Meta,
    spec: ModelDeploymentSpec,
    *,
    layout: Layout,
    grant: Grant,
    defaults: Defaults,
    awake: bool = False,
) -> dict[str, Any]:
    """Return the manifest; annotations hold a hash of all of it, so that an unchanged one is not applied again."""
    cluster = cluster_config(owner, spec, grant, defaults)
    if spec.rollout.strategy == "BlueGreen":
        template = cluster["workerGroupSpecs"][0]["template"]
        template["metadata"]["annotations"] = {
            **template["metadata"].get("annotations", {}),
            names.REVISION: layout.stable.name,
        }
    body = {"serveConfigV2": serve_config(owner, spec, layout, awake=awake), "rayClusterConfig": cluster}
    annotations = {names.SPEC_HASH: digest_of(body), names.CLUSTER_HASH: digest_of(_without_size(cluster))}
    if layout.previous:
        annotations[names.PREVIOUS] = json.dumps(dict(layout.previous.args), sort_keys=True)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": owner.name,
            "namespace": owner.namespace,
            "labels": names.labels("server", **{names.MODELDEPLOYMENT: owner.name}),
            "annotations": annotations,
            "ownerReferences": [pods.owner_reference(owner)],
        },
        "spec": body,
    }


def _without_size(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Ray cluster's part without the number of its workers, of which KubeRay makes no second cluster."""
    size = ("replicas", "minReplicas", "maxReplicas")
    groups = [{k: v for k, v in group.items() if k not in size} for group in cluster["workerGroupSpecs"]]
    return {**cluster, "workerGroupSpecs": groups}


def cluster_config(owner: Meta, spec: ModelDeploymentSpec, grant: Grant, defaults: Defaults) -> dict[str, Any]:
    """Return the Ray cluster's part, in which no version of the model may stand."""
    fewest, most = workers_of(spec)
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
                # A server that may sleep is awake when it is made.
                "replicas": max(fewest, 1),
                "minReplicas": fewest,
                "maxReplicas": most,
                "rayStartParams": {"num-cpus": _SLOTS_PER_POD, "object-store-memory": _OBJECT_STORE_BYTES},
                "template": _worker(owner, spec, grant, defaults),
            }
        ],
    }
    if spec.high_availability:
        config["gcsFaultToleranceOptions"] = _redis(owner, spec.high_availability.redis)
    if most > fewest:
        config["enableInTreeAutoscaling"] = True
        config["autoscalerOptions"] = {
            "imagePullPolicy": defaults.image_pull_policy,
            "idleTimeoutSeconds": 60,
            "resources": {"requests": dict(defaults.autoscaler.requests), "limits": dict(defaults.autoscaler.limits)},
            "securityContext": pods.CONTAINER_SECURITY,
        }
    return config


def _redis(owner: Meta, redis: Redis) -> dict[str, Any]:
    """Return where the head keeps its state: under the resource's uid, so that several may share one Redis."""
    options: dict[str, Any] = {"redisAddress": redis.address, "externalStorageNamespace": owner.uid}
    if redis.secret_ref:
        reference = {"name": redis.secret_ref.name, "key": redis.secret_ref.key}
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": reference}}
    return options


def disruption_budget(owner: Meta, spec: ModelDeploymentSpec) -> dict[str, Any]:
    """Return the budget by which draining nodes takes one server replica at a time; a single one may always go."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": owner.name,
            "namespace": owner.namespace,
            "labels": names.labels("server", **{names.MODELDEPLOYMENT: owner.name}),
            "ownerReferences": [pods.owner_reference(owner)],
        },
        "spec": {
            "minAvailable": max(replicas_of(spec)[0] - 1, 0),
            "selector": {"matchLabels": {names.MODELDEPLOYMENT: owner.name, names.COMPONENT: "worker"}},
        },
    }


def replicas_of(spec: ModelDeploymentSpec) -> tuple[int, int]:
    """Return the fewest and the most replicas."""
    scaling = spec.autoscaling
    return (scaling.min_replicas, scaling.max_replicas) if scaling else (spec.replicas or 1, spec.replicas or 1)


def workers_of(spec: ModelDeploymentSpec) -> tuple[int, int]:
    """Return the fewest and the most pods. Two revisions cannot share a GPU, so a rollout needs as many pods again."""
    fewest, most = replicas_of(spec)
    return fewest, most * 2 if spec.runtime.gpus_per_replica else most


def _head(owner: Meta, spec: ModelDeploymentSpec, defaults: Defaults) -> dict[str, Any]:
    """Return the head's pod: Ray's bookkeeping. It gets no credentials and no GPU."""
    placed = spec.runtime.model_copy(update={"service_account_name": None, "node_selector": {}})
    limits = {"requests": dict(defaults.serve_head.requests), "limits": dict(defaults.serve_head.limits)}
    container = {**_container("ray-head", spec, defaults), "resources": limits}
    fewest, most = workers_of(spec)
    pod = {
        "containers": [container],
        # Ray's autoscaler, which runs beside the head, asks Kubernetes for pods; nothing else here talks to it.
        "automountServiceAccountToken": most > fewest,
        **pods.placement(placed),
    }
    return _template(owner, spec, "head", pod, defaults)


def _worker(owner: Meta, spec: ModelDeploymentSpec, grant: Grant, defaults: Defaults) -> dict[str, Any]:
    """Return a worker's pod: a server replica and, during a rollout, one of the canary."""
    runtime, log = spec.runtime, log_grant(spec)
    grants = [grant, log] if log else [grant]
    container = {
        **_container("ray-worker", spec, defaults),
        "env": pods.environment(defaults, [{"name": "LUTHIER_CACHE", "value": CACHE_DIR}]),
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", _LEAVE]}}},
        "resources": pods.resources(runtime.resources, defaults.serve, gpus=runtime.gpus_per_replica),
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE_DIR},
            *access.mounts(grants),
            *_api_keys_mounts(spec),
            *verification.mounts(spec.model),
        ],
    }
    if runtime.grpc:
        container["ports"] = grpc.WORKER_PORTS
    pod = {
        "containers": [container],
        "volumes": [
            {"name": "cache", "emptyDir": {}},
            *access.volumes(grants),
            *_api_keys_volumes(spec),
            *verification.volumes(spec.model),
        ],
        "automountServiceAccountToken": False,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {names.MODELDEPLOYMENT: owner.name, names.COMPONENT: "worker"}},
            }
        ],
        **pods.placement(runtime),
    }
    return _template(owner, spec, "worker", pod, defaults)


def _api_keys_volumes(spec: ModelDeploymentSpec) -> list[dict[str, Any]]:
    """Return the Secret of API keys, each of which is a file: the kubelet replaces them when the Secret changes."""
    if spec.auth is None:
        return []
    return [{"name": _API_KEYS, "secret": {"secretName": spec.auth.api_keys_secret_ref.name}}]


def _api_keys_mounts(spec: ModelDeploymentSpec) -> list[dict[str, Any]]:
    return [{"name": _API_KEYS, "mountPath": API_KEYS_DIR, "readOnly": True}] if spec.auth else []


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


def cluster_hash_of(manifest: Mapping[str, Any]) -> str:
    """Return the hash of the Ray cluster's part; another one makes KubeRay build a second cluster."""
    return str(manifest["metadata"]["annotations"][names.CLUSTER_HASH])
