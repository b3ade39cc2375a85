"""Jobs whose own container has ended while another one in the pod, that admission put there, runs on or has failed.

Kubernetes waits for every container of a pod, and a service mesh's proxy, injected as an ordinary container, never
ends. What counts is the container that Luthier made: `ownership` reads the outcome of the Job from it, and here the Job
is ended once that outcome is in the written status. A sidecar that ends by itself in a moment is left the time. Pure.
"""

from dataclasses import dataclass

from luthier_api.reasons import Reason
from luthier_operator.model.actions import Delete, EventNote
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import JobView
from luthier_operator.plan.finetunejob.situation import Situation, deletions

_PATIENCE_S = 10.0
_NEXT_S = 1.0


@dataclass(frozen=True)
class Outlived:
    """What is done about such Jobs, beside what a policy decided."""

    deletes: tuple[Delete, ...] = ()
    events: tuple[EventNote, ...] = ()
    requeue_after_s: float | None = None


def outlived(s: Situation) -> Outlived:
    """Return the end of the Jobs that would not end, and when to look again for those whose turn comes."""
    waiting = [job for job in (*s.jobs, *s.removals) if job.lingering and not job.deleting]
    due = [job for job in waiting if _written(s, job) and _left_s(s, job) <= 0]
    rest = [max(_left_s(s, job), _NEXT_S) for job in waiting if job not in due]
    events = tuple(EventNote(Reason.SIDECAR_RUNNING, _sentence(job), warning=True) for job in due)
    return Outlived(deletions(due), events, min(rest, default=None))


def _left_s(s: Situation, job: JobView) -> float:
    return _PATIENCE_S - seconds_since(job.ended_at, s.now)


def _written(s: Situation, job: JobView) -> bool:
    """Whether nothing is lost with the Job: its outcome is in the status, or training has begun on what it prepared."""
    written = s.resource.status.current_run
    if written is None or written.name != job.run:
        return s.record.run is None or s.record.run.name != job.run
    return written.stage in ("Succeeded", "Failed") or (job.stage == "prepare" and written.stage == "Train")


def _sentence(job: JobView) -> str:
    who = " and ".join(job.outlived_by)
    return (
        f"The container {who} of the Job {job.name} has not ended with the work, so the Job is deleted; its result is "
        "taken. Switch its injection off by podMetadata, or inject it as a native sidecar."
    )
