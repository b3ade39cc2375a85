"""A Job that waits in a Kueue queue: what Kueue says of it, in the conditions of the resource.

A queued Job is made suspended, and from then on its `suspend` is Kueue's: nothing here writes it. The condition
`Admitted` says whether Kueue has admitted the Job. While it has not, `Ready` says why: Queued, Requeued after it was
stopped, or QueueNotFound. Being stopped by Kueue is a disruption: it is remembered and does not count as a failure.
Pure.
"""

from dataclasses import replace
from datetime import datetime

from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.timestamps import EARLIEST, parse_time, rfc3339_if_known, seconds_since
from luthier_operator.model.views import JobView, WorkloadView
from luthier_operator.plan.pods.diagnosis import clip
from luthier_operator.plan.verdict import Admission, Verdict

# Kueue has one reason for a queue that is missing and one that is stopped; only its message tells them apart.
_MISSING = "doesn't exist"
# Kueue makes the Workload of a new Job at once.
_PROMPT_S = 2.0


def mirrored(
    verdict: Verdict, job: JobView, workload: WorkloadView | None, *, kueue_installed: bool, now: datetime
) -> Verdict:
    """Return the verdict on a Job, with what Kueue says of it; that given is for a Job in no queue."""
    if job.queue is None or not job.live:
        return verdict
    if workload is not None and workload.admitted:
        return replace(verdict, admission=Admission(True, Reason.ADMITTED, clip(workload.message)))
    if workload is None and not job.suspended:
        return verdict  # somebody has resumed it without Kueue
    if workload is None or not (workload.message or workload.evicted):
        reason, message = _no_word(job, job.queue, kueue_installed, now)
    else:
        reason, message = _why_not(job, job.queue, workload)
    return Verdict("Queued", reason, message, reconciling=True, admission=Admission(False, reason, message))


def held(job: JobView, workload: WorkloadView | None) -> Verdict:
    """Return the verdict on a Job in no queue that somebody else has suspended, which is left as it is."""
    if workload is not None:
        why = f" Kueue reports: {clip(workload.message)}" if workload.message else ""
        text = (
            f"Kueue has suspended the Job {job.name}, although the spec names no queueName (its "
            "manageJobsWithoutQueueName is on), and Luthier leaves it to Kueue. Set queueName to a LocalQueue of the "
            f"namespace.{why}"
        )
        return Verdict("Queued", Reason.QUEUED, text, reconciling=True)
    who = job.suspended_by or "Somebody other than Luthier, such as a webhook or Kueue,"
    text = (
        f"{who} has suspended the Job {job.name}, and Luthier leaves it so. Resume it there, or with kubectl patch job "
        f"""{job.name} --type merge -p '{{"spec":{{"suspend":false}}}}'."""
    )
    return Verdict("Suspended", Reason.SUSPENDED, text, reconciling=True)


def _no_word(job: JobView, queue: str, kueue_installed: bool, now: datetime) -> tuple[Reason, str]:
    if not kueue_installed:
        text = f"queueName is {queue}, but Kueue is not installed. Install it, or remove queueName from the spec."
        return Reason.QUEUE_NOT_FOUND, text
    if seconds_since(job.created_at, now) < _PROMPT_S:
        return Reason.QUEUED, f"Waiting in queue {queue}."
    text = f"Waiting in queue {queue}, but Kueue reports nothing about the Job {job.name}. Is its controller running?"
    return Reason.QUEUED, text


def _why_not(job: JobView, queue: str, workload: WorkloadView) -> tuple[Reason, str]:
    kueue_says = clip(workload.message)
    if workload.inadmissible and _MISSING in kueue_says:
        text = (
            f"The queue {queue} cannot be used: {kueue_says} Create it in namespace {job.namespace}, or correct "
            "queueName."
        )
        return Reason.QUEUE_NOT_FOUND, text
    if workload.evicted is not None:
        text = (
            f"Kueue stopped the run: {clip(workload.evicted)} It waits in queue {queue} and continues when it is "
            "admitted again"
        )
        more = kueue_says and workload.message != workload.evicted
        return Reason.REQUEUED, f"{text}: {kueue_says}" if more else f"{text}."
    if workload.inadmissible:
        return Reason.QUEUED, f"The queue {queue} admits nothing at present: {kueue_says}"
    return Reason.QUEUED, f"Waiting in queue {queue}: {kueue_says}"


def eviction(workload: WorkloadView | None, last: LastFailure | None) -> LastFailure | None:
    """Return that Kueue stopped the run, if it did so after the last failure that is remembered."""
    if workload is None or workload.evicted is None:
        return None
    if last is not None and (workload.evicted_at or EARLIEST) <= (parse_time(last.at) or EARLIEST):
        return None
    text = f"Kueue stopped the run: {clip(workload.evicted)} This does not count towards backoffLimit."
    return LastFailure(reason=Reason.PREEMPTED, message=text, at=rfc3339_if_known(workload.evicted_at))
