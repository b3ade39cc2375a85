"""When to ask for the Events that say why a pod is not made: a Job that may run and has had none for a while.

Only Events tell of a pod that an admission check refused, so somebody has to look; nothing wakes the operator. Looking
costs a request, so it begins after two seconds and grows rarer. The Job controller's `startTime` goes before: a Job
that the controller has not come to yet, among thousands, has nothing to be asked about.
"""

from collections.abc import Sequence
from datetime import datetime

from luthier_operator.observed import JobView, PodView
from luthier_operator.plan import failures
from luthier_operator.timestamps import seconds_since

FIRST_LOOK_S = 2.0
_SELDOM_S = 10.0


def waited_s(job: JobView, pods: Sequence[PodView], now: datetime) -> float | None:
    """Return how long a Job has waited for a pod that it may make; None if it does not."""
    resting = job.suspended or job.deleting or not job.live
    if resting or not job.started_at or job.active or failures.pods_of(job, pods):
        return None
    return seconds_since(job.started_at, now)


def look_again_s(waited: float) -> float:
    """Return when to look again: after 2, 4, 8 s, and then every 10 s."""
    return FIRST_LOOK_S - waited if 0 <= waited < FIRST_LOOK_S else min(max(waited, FIRST_LOOK_S), _SELDOM_S)
