"""Whether the server lacks pods, or one of them its volumes, and when to ask the API server why: only Events say so.

KubeRay creates the pods, so it is told when a quota or a policy refuses one, and the kubelet mounts what may not exist;
nothing wakes the operator for either. Asking costs a request, so it begins after two seconds and grows rarer, and
nothing is asked about what answers.
"""

from collections.abc import Sequence
from datetime import datetime

from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import PodView, RayServiceView
from luthier_operator.plan.pods.diagnosis import Diagnosis, diagnose, diagnose_event

REASONS = ("FailedToCreateHeadPod", "FailedToCreateWorkerPod")
_FIRST_S, _LATER_S = 2.0, 10.0
_MOST_ASKED = 3


def ask_again_s(server: RayServiceView | None, pods: Sequence[PodView], now: datetime) -> float | None:
    """Return when to ask (again) why pods, or volumes of one, are missing; None if none are, or all is well."""
    waited_s = _waited_s(server, pods, now)
    if waited_s is None:
        return None
    return min(waited_s, _LATER_S) if waited_s >= _FIRST_S else _FIRST_S - max(waited_s, 0.0)


def workers(server: RayServiceView | None, pods: Sequence[PodView]) -> int:
    """Return how many workers a server has: pods, if any is known; KubeRay's count may be an old one."""
    there = sum(1 for pod in pods if pod.component == "worker" and not pod.ended and not pod.deleting)
    return there or (server.workers if server else 0)


def is_due(server: RayServiceView, pods: Sequence[PodView], now: datetime) -> bool:
    """Whether pods, or volumes of one, are missing, and there was time to make them."""
    waited_s = _waited_s(server, pods, now)
    return waited_s is not None and waited_s >= _FIRST_S


def unmounted(pods: Sequence[PodView]) -> list[PodView]:
    """Return pods that may lack their volumes: a few, because what one of them lacks they all do."""
    return [pod for pod in pods if pod.mounting and not pod.deleting][:_MOST_ASKED]


def _waited_s(server: RayServiceView | None, pods: Sequence[PodView], now: datetime) -> float | None:
    """Return for how long something has been missing; None if nothing is, or if what there is answers."""
    if server is None or not server.cluster or server.deleting or (server.serving and not server.upgrading):
        return None
    if waiting := unmounted(pods):
        return max(seconds_since(pod.created_at, now) for pod in waiting)
    if sum(not pod.ended for pod in pods) > max(server.workers, 1):
        return None  # the head and its workers
    return seconds_since(server.created_at, now)


def diagnosis(server: RayServiceView | None, pods: Sequence[PodView], event: str) -> Diagnosis | None:
    """Return why the server's pods do not start, or were not even created."""
    text = event or (server.refused if server else "")
    return diagnose(pods) or (diagnose_event(text, "runtime.resources") if text else None)
