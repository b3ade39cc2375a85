"""How long GPUs were held: the time of every training pod that ended, counted once.

The status remembers up to when it is counted. So a pod that stays for a day is not counted again, and one that was
evicted and is gone the next moment is not lost.
"""

from collections.abc import Sequence

from luthier_api.finetunejob import FineTuneJobStatus, Usage
from luthier_operator.model.timestamps import EARLIEST, parse_time, rfc3339, seconds_since
from luthier_operator.model.views import JobView, PodView


def usage(before: FineTuneJobStatus, jobs: Sequence[JobView]) -> Usage | None:
    """Return what was used, with the pods of these Jobs that have ended since.

    A pod that ended well is counted with the end of its Job, which the status says anyway: one write and not two.
    """
    under_way = before.current_run is not None and before.current_run.stage in ("Prepare", "Train")
    if before.usage is None and not under_way:
        return None  # an older release, which did not count, wrote the status
    known = before.usage or Usage()
    counted_until = parse_time(known.counted_until) or EARLIEST
    new = [
        (job, pod, pod.finished_at)
        for job in jobs
        for pod in job.pods
        if pod.gpus and pod.finished_at and pod.finished_at > counted_until
    ]
    if not any(pod.phase == "Failed" or pod.deleting or not job.live for job, pod, _ in new):
        return before.usage
    seconds = sum(pod.gpus * _held_s(pod) for _, pod, _ in new)
    newest = max(finished_at for _, _, finished_at in new)
    return Usage(gpu_seconds=known.gpu_seconds + round(seconds), counted_until=rfc3339(newest))


def _held_s(pod: PodView) -> float:
    return max(0.0, seconds_since(pod.started_at, pod.finished_at)) if pod.finished_at else 0.0
