"""Waiting in a Kueue queue: what Kueue says of the run's Job, in the resource's own conditions and with Kueue's words.

A queued Job is made suspended, and from then on its `suspend` is Kueue's: nothing here writes it. Condition `Admitted`
says whether Kueue has let the Job in. While it has not, `Ready` says why: Queued, Requeued after it was stopped, or
QueueNotFound. Being stopped by Kueue is a disruption: it is remembered and does not count as a failure.
Pure; `finetunejob` calls it for whatever Job it waits for.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import JobView, WorkloadView
from luthier_operator.plan.finetunejob.runs import Memory
from luthier_operator.plan.finetunejob.situation import ObservedRuns
from luthier_operator.plan.finetunejob.status import Admission, Verdict
from luthier_operator.plan.pods.diagnosis import clip

# Kueue has one reason for a queue that is missing and one that is stopped; only its words tell them apart.
_MISSING = "doesn't exist"
# Kueue speaks of a new Job at once.
_PROMPT_S = 2.0


def mirrored(verdict: Verdict, job: JobView, observed: ObservedRuns, now: str) -> Verdict:
    """Return what is to be said of a Job, which would be `verdict` if it waited for no queue."""
    if job.queue is None or not job.live:
        return verdict
    view = observed.workloads.get(job.uid)
    if view is not None and view.admitted:
        return replace(verdict, admission=Admission(True, Reason.ADMITTED, clip(view.message)))
    if view is None and not job.suspended:
        return verdict  # somebody has let it go on without Kueue
    if view is None or not (view.message or view.evicted):
        reason, message = _silence(job, job.queue, observed.kueue_installed, now)
    else:
        reason, message = _why_not(job, job.queue, view)
    return Verdict("Queued", reason, message, going_on=True, admission=Admission(False, reason, message))


def _silence(job: JobView, queue: str, kueue_installed: bool, now: str) -> tuple[Reason, str]:
    if not kueue_installed:
        text = f"queueName is {queue}, but Kueue is not installed: install it, or take queueName out of the spec."
        return Reason.QUEUE_NOT_FOUND, text
    if seconds_since(job.created_at, datetime.fromisoformat(now)) < _PROMPT_S:
        return Reason.QUEUED, f"Waiting in queue {queue}."
    text = f"Waiting in queue {queue}, but Kueue says nothing about the Job {job.name}: does its controller run?"
    return Reason.QUEUED, text


def _why_not(job: JobView, queue: str, view: WorkloadView) -> tuple[Reason, str]:
    said = clip(view.message)
    if view.inadmissible and _MISSING in said:
        text = f"The queue {queue} cannot be used: {said} Create it in namespace {job.namespace}, or correct queueName."
        return Reason.QUEUE_NOT_FOUND, text
    if view.evicted is not None:
        text = (
            f"Kueue stopped the run: {clip(view.evicted)} It waits in queue {queue} and goes on when it is let in again"
        )
        return Reason.REQUEUED, f"{text}: {said}" if said and view.message != view.evicted else f"{text}."
    if view.inadmissible:
        return Reason.QUEUED, f"The queue {queue} lets nothing in at present: {said}"
    return Reason.QUEUED, f"Waiting in queue {queue}: {said}"


def remembered(memory: Memory, workloads: Mapping[str, WorkloadView]) -> Memory:
    """Return the memory with each time that Kueue stopped the run, once: when it was after the last failure known."""
    run = memory.run
    if run is None or run.ended:
        return memory
    for job in (run.prepare, run.train):
        view = workloads.get(job.uid) if job else None
        if view is None or view.evicted is None or not _is_new(view, memory.last_failure):
            continue
        memory = replace(memory.with_disruption(), last_failure=_stopped(view))
    return memory


def _is_new(view: WorkloadView, last: LastFailure | None) -> bool:
    return last is None or view.evicted_at > (last.at or "")


def _stopped(view: WorkloadView) -> LastFailure:
    text = f"Kueue stopped the run: {clip(view.evicted or '')} This does not count towards backoffLimit."
    return LastFailure(reason=Reason.PREEMPTED, message=text, at=view.evicted_at or None)
