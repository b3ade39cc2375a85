"""A server that may have no replica: when it is kept awake, what is true of it while it sleeps, and how long it took.

Without a replica, requests wait at the proxy on Ray's head, which Ray Serve tells of the first one after it has come.
So they are answered, only later, and `Available` stays true as long as nothing stands in the way of a replica.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from luthier_api.modeldeployment import ColdStart, ModelDeploymentSpec
from luthier_operator.manifests import scaling
from luthier_operator.manifests.rayservice import Layout
from luthier_operator.model import names
from luthier_operator.model.timestamps import parse_time, rfc3339
from luthier_operator.model.views import PodReport, PodView, RayServiceView
from luthier_operator.plan.modeldeployment.rollout import Situation


def stays_awake(
    spec: ModelDeploymentSpec, server: RayServiceView | None, rollout: Situation, wanted: Layout, *, new_cluster: bool
) -> bool:
    """Return whether at least one replica is kept, with or without requests.

    It is while anything changes: so each version and each Ray cluster has answered before it is put to sleep.

    Args:
        spec: what the user asks for.
        server: what there is.
        rollout: how that stands.
        wanted: what is to be on the server.
        new_cluster: whether that needs another Ray cluster.
    """
    if not scaling.may_sleep(spec):
        return False
    if server is None or rollout.layout != wanted or wanted.canary or not rollout.settled:
        return True
    if new_cluster or server.upgrading:
        return True
    # KubeRay has not said yet what it makes of the last configuration.
    lags = server.observed_generation < server.generation
    return lags and scaling.is_awake(server.serve_config, names.SERVER)


def holds_requests(
    spec: ModelDeploymentSpec,
    server: RayServiceView | None,
    rollout: Situation,
    reports: Sequence[PodReport],
    *,
    hindered: bool,
) -> bool:
    """Return whether there is no replica, and requests wait until one has started.

    Args:
        spec: what the user asks for.
        server: what there is.
        rollout: how that stands.
        reports: what server replicas say.
        hindered: whether something keeps a pod from starting.
    """
    if not scaling.may_sleep(spec) or server is None or not server.serving or hindered or not rollout.served:
        return False
    if any(each.report and each.report.ready for each in reports):
        return False
    stable, deadline_s = rollout.stable, spec.rollout.progress_deadline_seconds
    return stable.state == "Running" or (stable.state == "Starting" and stable.age_s <= deadline_s)


def is_starting(pods: Sequence[PodView], reports: Sequence[PodReport]) -> bool:
    """Return whether a pod is on its way; one that had a replica is on its way out."""
    known = {each.pod for each in reports}
    there = (pod for pod in pods if pod.component == "worker" and not pod.ended and not pod.deleting)
    return any(pod.name not in known for pod in there)


def cold_start(
    spec: ModelDeploymentSpec, pods: Sequence[PodView], reports: Sequence[PodReport], before: ColdStart | None
) -> ColdStart | None:
    """Return how long the newest first start of a replica in a pod took; None for a server that never sleeps."""
    if not scaling.may_sleep(spec):
        return None
    by_name = {pod.name: pod for pod in pods}
    last = parse_time(before.at) if before else None
    found = before
    for each in reports:
        pod, start = by_name.get(each.pod), each.report.start if each.report else None
        if pod is None or start is None or pod.created_at is None or pod.started_at is None:
            continue
        ready_at = datetime.fromtimestamp(start.ready, UTC)
        # A replica that is started again in the same pod has not started cold.
        if last and (last >= pod.created_at or ready_at <= last):
            continue
        last = ready_at
        created, started = pod.created_at.timestamp(), pod.started_at.timestamp()
        found = ColdStart(
            at=rfc3339(ready_at),
            seconds=_seconds(start.ready - created),
            pod_seconds=_seconds(started - created),
            ray_seconds=_seconds(start.began - started),
            download_seconds=_seconds(start.download_s),
            load_seconds=_seconds(start.load_s),
        )
    return found


def _seconds(seconds: float) -> str:
    """Clocks of two machines may differ by more than a short time."""
    return f"{max(seconds, 0.0):.1f}"
