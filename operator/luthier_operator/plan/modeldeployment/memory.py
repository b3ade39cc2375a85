"""Whether a revision ran out of memory, and in which words: from what Ray, the kernel and the pods say. Pure.

There are two who end a process for memory. Ray's memory monitor, in each pod, ends the newest process when the pod
comes close to its limit, and says so where the dead process is asked for. The kernel, if it is quicker, ends the whole
container (cgroup v2), as the pod's status says; or one process (cgroup v1), which only a count in the container says,
while Ray knows no more than that a process has died.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from luthier_api.documents import ServerReport
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import PodView

RAN_OUT = "it ran out of memory"
PERHAPS = "its process was killed or crashed, most often for lack of memory"
_REMEDY = "A pod holds two versions during a rollout; raise limits.memory in runtime.resources"
# What an end in a pod's status, or a process that the kernel has ended, may have caused.
_RECENT_S = 600.0

_OF_RAY = re.compile(r"low on memory|NODE_OUT_OF_MEMORY")
# An actor is "unavailable" to Ray where it sees the connection end before it hears of the process's death.
_DIED = re.compile(
    r"ActorDiedError|ActorUnavailableError|[Ww]orker process has died|[Ww]orker unexpectedly exits|died unexpectedly"
)


def cause(
    text: str, deaths: Iterable[str], reports: Iterable[ServerReport], pods: Sequence[PodView], now: datetime
) -> str:
    """Return that a revision ran out of memory, as the end of a sentence and another one; empty if nothing says so.

    Args:
        text: what Ray Serve says of its application.
        deaths: why its replicas died, in the words of Ray.
        reports: of the server replicas, which know what the kernel did.
        pods: of the server.
        now: the time.
    """
    if "LoadError: " in text:
        return ""  # it says itself what is wrong
    said = [text, *deaths]
    died = any(_DIED.search(each) for each in said)
    by_kernel = killed_since(pods, None, now) or any(report.oom_kills for report in reports)
    if any(_OF_RAY.search(each) for each in said) or (died and by_kernel):
        return f"{RAN_OUT}{_limit(pods)}. {_REMEDY}"
    return f"{PERHAPS}{_limit(pods)}. See the logs of its pods. {_REMEDY}" if died else ""


def killed_since(pods: Iterable[PodView], since: datetime | None, now: datetime) -> bool:
    """Whether a container of a server's worker was ended at its memory limit, lately or since a time."""
    ends = [pod.memory_killed_at for pod in pods if pod.component == "worker" and pod.memory_killed_at]
    return any(end >= since if since else seconds_since(end, now) <= _RECENT_S for end in ends)


def ended_with_pod(pods: Sequence[PodView]) -> str:
    """Return that a revision's process took the pod's memory, and its container along."""
    return f"{RAN_OUT}{_limit(pods)}, and its pod's container was killed. {_REMEDY}"


def _limit(pods: Iterable[PodView]) -> str:
    limits = (pod.memory_limit for pod in pods if pod.component == "worker")
    return next((f" (limit {limit})" for limit in limits if limit), "")
