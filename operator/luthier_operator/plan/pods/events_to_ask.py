"""Which Events to ask for, and when: those that say why a pod is not created, or cannot mount its volumes.

Only Events report that an admission check refused a pod, or that a Secret or ConfigMap to be mounted does not exist,
and nothing wakes the operator for them. Asking costs a request, so it begins after two seconds and grows rarer. Nothing
is asked about a Job without `startTime`: the Job controller has not come to it yet, as when there are thousands.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import JobView

FAILED_MOUNT: Final = "FailedMount"
_FIRST_S = 2.0
_LATER_S = 10.0


@dataclass(frozen=True)
class EventQuery:
    """What to ask the API server about a Job that has waited for so long."""

    job_uid: str
    about_uid: str
    """uid of the object that the Events are about: the Job, or its pod."""
    reason: Literal["FailedCreate", "FailedMount"]
    waited_s: float

    @property
    def due(self) -> bool:
        """Whether it has waited long enough to be asked about."""
        return self.waited_s >= _FIRST_S

    @property
    def again_s(self) -> float:
        """When to look again: after 2, 4, 8 s, and then every 10 s."""
        return min(self.waited_s, _LATER_S) if self.due else _FIRST_S - max(self.waited_s, 0.0)


def queries(jobs: Iterable[JobView], now: datetime, *, mounts: bool) -> list[EventQuery]:
    """Return what there is to ask about these Jobs; `mounts` says whether their pods mount what may not be there."""
    found = (_about(job, now, mounts=mounts) for job in jobs if job.live and not job.deleting)
    return [query for query in found if query]


def _about(job: JobView, now: datetime, *, mounts: bool) -> EventQuery | None:
    if job.suspended or job.started_at is None:
        return None
    if not job.pods:
        waited_s = seconds_since(job.started_at, now)
        return None if job.active else EventQuery(job.uid, job.uid, "FailedCreate", waited_s)
    pod = job.pods[0]
    if pod.mounting and mounts:
        return EventQuery(job.uid, pod.uid, FAILED_MOUNT, seconds_since(pod.created_at, now))
    return None
