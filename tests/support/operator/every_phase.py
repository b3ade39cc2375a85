"""Resources in every phase, as the operator leaves them: from the recordings of a real API server, and from plans.

recorded()    what a release's operator wrote (tests/integration/operator/upgrade)
planned()     what the present plan writes, in the world of the unit tests
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from luthier_api import API_VERSION
from luthier_api.batchprediction import BatchPredictionSpec
from luthier_api.documents import RevisionCounts
from luthier_dev.paths import REPOSITORY
from support.operator.serving import DEFAULTS, FOLLOWING, Cluster, job, serving, version

Raw = dict[str, Any]
RECORDED = REPOSITORY / "tests" / "integration" / "operator" / "upgrade" / "0.1.0"
STEPS = [{"trafficPercent": 5, "pauseSeconds": 300}, {"trafficPercent": 50, "pause": "Manual"}]
LIMITS = {"minRequests": 10, "maxErrorRate": "0.01"}


def recorded(kind: str) -> dict[str, Raw]:
    """Return {phase: resource} of the recordings."""
    found: dict[str, Raw] = {}
    for path in sorted(RECORDED.glob("*.json")):
        for raw in json.loads(path.read_text()).get(f"{kind.lower()}s", []):
            raw["metadata"].pop("resourceVersion", None)
            raw["metadata"].get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
            found[path.stem] = raw
    return found


def of_world(world: Any) -> Raw:
    """Return the FineTuneJob of the unit tests' world as the cluster would."""
    metadata = {"name": world.name, "namespace": "team", "uid": world.uid, "generation": world.generation}
    if world.deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": metadata,
        "spec": world.spec.to_wire(),
        "status": world.status or {"observedGeneration": 0},
    }


def of_cluster(cluster: Cluster) -> Raw:
    """Return the ModelDeployment of the unit tests' cluster as the API server would."""
    meta = cluster.meta
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "generation": meta.generation},
        "spec": cluster.spec.to_wire(),
        "status": cluster.status.to_wire(),
    }


def of_batch(world: Any) -> Raw:
    """Return the BatchPrediction of the unit tests' world as the API server would."""
    return {
        "apiVersion": API_VERSION,
        "kind": "BatchPrediction",
        "metadata": {"name": "reviews", "namespace": "team", "uid": world.uid, "generation": world.generation},
        "spec": BatchPredictionSpec.model_validate(world.spec).to_wire(),
        "status": world.status.to_wire(),
    }


def new() -> Cluster:
    return Cluster()


def waiting() -> Cluster:
    cluster = Cluster()
    cluster.job = None
    cluster.carry_out(cluster.plan())
    return cluster


def deploying() -> Cluster:
    cluster = Cluster()
    for _ in range(2):
        cluster.carry_out(cluster.plan())
    return cluster


def up() -> Cluster:
    return serving(version("v-a"))


def suspended() -> Cluster:
    cluster = serving(version("v-a"))
    cluster.spec = cluster.spec.model_copy(update={"suspend": True})
    for _ in range(3):
        cluster.carry_out(cluster.plan())
    return cluster


def _canary(**rollout: Any) -> Cluster:
    """Bring a second version so far that it has a share, or has begun."""
    cluster = serving(version("v-a"), spec={**FOLLOWING, "rollout": rollout})
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    return cluster


def starting() -> Cluster:
    return _canary(steps=STEPS)


def in_step() -> Cluster:
    cluster = _canary(steps=STEPS)
    for _ in range(6):
        cluster.ray_works()
        cluster.carry_out(cluster.plan())
        if cluster.layout.step is not None:
            break
        cluster.now += timedelta(seconds=DEFAULTS.settle_s)
    cluster.carry_out(cluster.plan())
    return cluster


def paused() -> Cluster:
    cluster = in_step()
    wish(cluster, "pause", f"{cluster.meta.generation}")
    cluster.carry_out(cluster.plan())
    return cluster


def at_a_manual_step() -> Cluster:
    cluster = in_step()
    cluster.now += timedelta(seconds=301)
    for _ in range(2):
        cluster.carry_out(cluster.plan())
        cluster.ray_works()
    return cluster


def shifted() -> Cluster:
    cluster = at_a_manual_step()
    wish(cluster, "promote", f"{cluster.meta.generation}#1")
    for _ in range(2):
        cluster.carry_out(cluster.plan())
        cluster.ray_works()
    return cluster


def rolled_back() -> Cluster:
    cluster = _canary(steps=[{"trafficPercent": 5}], analysis=LIMITS)
    cluster.counts = {"v-b": RevisionCounts(requests=100, errors=50), "v-a": RevisionCounts(requests=100, errors=0)}
    cluster.settle()
    return cluster


def broken() -> Cluster:
    cluster = _canary()
    cluster.broken = {"v-b"}
    cluster.settle()
    return cluster


def wish(cluster: Cluster, name: str, value: str) -> None:
    """Annotate the resource."""
    cluster.meta = replace(cluster.meta, wishes={**cluster.meta.wishes, name: value})


Health = str
MODELDEPLOYMENTS: dict[str, tuple[Callable[[], Cluster], Health, set[str]]] = {
    "new": (new, "Progressing", {"suspend"}),
    "waiting": (waiting, "Progressing", {"suspend"}),
    "deploying": (deploying, "Progressing", {"suspend"}),
    "serving": (up, "Healthy", {"suspend"}),
    "suspended": (suspended, "Suspended", {"resume"}),
    "starting": (starting, "Progressing", {"suspend", "skip", "pause", "abort"}),
    "in-step": (in_step, "Progressing", {"suspend", "promote", "skip", "pause", "abort"}),
    "paused": (paused, "Suspended", {"suspend", "promote", "skip", "abort"}),
    "at-a-manual-step": (at_a_manual_step, "Suspended", {"suspend", "promote", "skip", "abort"}),
    "shifted": (shifted, "Progressing", {"suspend", "abort"}),
    "rolled-back": (rolled_back, "Degraded", {"suspend", "retry"}),
    "broken": (broken, "Degraded", {"suspend", "retry"}),
}
"""{name: how to get there, its health, the actions that make sense}."""
