"""How long GPUs were held: the time of every training pod that ended, counted once.

The status remembers up to when it is counted, so that a pod which lies there for a day is not counted again, and one
that was evicted and is gone the next moment is not lost.
"""

from collections.abc import Sequence
from datetime import datetime

from luthier_api.finetunejob import FineTuneJobStatus, Usage
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import JobView, PodView


def usage(before: FineTuneJobStatus, jobs: Sequence[JobView], pods: Sequence[PodView]) -> Usage | None:
    """Return what was used, with the pods of these Jobs that have ended since.

    A pod that ended well is counted with the end of its Job, which the status says anyway: one write and not two.
    """
    going_on = before.current_run is not None and before.current_run.stage in ("Prepare", "Train")
    if before.usage is None and not going_on:
        return None  # what ended before anybody counted
    known = before.usage or Usage()
    by_uid = {job.uid: job for job in jobs}
    new = [
        pod for pod in pods if pod.gpus and pod.owner_uid in by_uid and pod.finished_at > (known.counted_until or "")
    ]
    if not any(pod.phase == "Failed" or pod.deleting or not by_uid[pod.owner_uid].live for pod in new):
        return before.usage
    seconds = sum(pod.gpus * _held_s(pod) for pod in new)
    return Usage(gpu_seconds=known.gpu_seconds + round(seconds), counted_until=max(pod.finished_at for pod in new))


def _held_s(pod: PodView) -> float:
    return max(0.0, seconds_since(pod.started_at, datetime.fromisoformat(pod.finished_at))) if pod.started_at else 0.0
