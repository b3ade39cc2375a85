"""Starting over: a Job that must begin again, training from its newest checkpoint, is given up, and counted once.

Kubernetes restarts the pod of a run on one node by itself. A Job is given up where Kubernetes cannot: a pod is stuck,
or one of the pods on several nodes was lost, or a pod has exit code 137, which ends its Job, for another reason than
memory. A Job that waits in a queue is given up too when the user suspends the run, because its own `suspend` belongs to
the queue.

It takes two steps, so that it may be cut off anywhere. First only the status is written: it names the Job by its uid,
and holds how many failures it brought. A Job that is named so is no longer the run's training; it is then deleted, and
when it is gone a new one of the same name is created.

Where the keys have expired, that waits a little: whoever renews the Secret needs time, and nobody tells the operator.
"""

from dataclasses import replace
from datetime import datetime

from luthier_api.exitcodes import Retry
from luthier_api.finetunejob import Attempts, LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import JobView
from luthier_operator.plan.finetunejob import crashes, stuck
from luthier_operator.plan.finetunejob.attempts import failures_of
from luthier_operator.plan.finetunejob.runs import Run, RunRecord, ended
from luthier_operator.plan.finetunejob.situation import Situation
from luthier_operator.plan.pods import failures

_PAUSE_S = 60.0


def due(s: Situation) -> RunRecord | None:
    """Return the record in which a Job of the run is given up, if it has to start over by itself."""
    job = (s.run.train or s.run.prepare) if s.run else None
    if s.run is None or job is None:
        return None
    failed = failures_of(job)
    if s.run.starts_over(job, s.wanted):
        if pause_s(job, s.now):
            return None
        failure = failures.job_failure(job)
        after = give_up(s, job, failed, failure)
        return after.with_disruption() if _uncounted_disruption(s, job, failure) else after
    if (train := s.run.train) and s.stuck(train):
        deadline_s = s.spec.progress_deadline_seconds
        return give_up(s, train, failed + 1, stuck.failure(train.pods, s.resource.status.progress, deadline_s, s.now))
    return None


def pause_s(job: JobView, now: datetime) -> float | None:
    """Return how long a Job that failed because the keys have expired is left as it is, if it still is.

    Between the pods of one that trains alone, the Job controller pauses by itself, for up to ten minutes.
    """
    if not failures.starts_over(job) or failures.job_failure(job).reason != Reason.CREDENTIALS_EXPIRED:
        return None
    left_s = _PAUSE_S - seconds_since(job.ended_at, now)
    return left_s if left_s > 0 else None


def _uncounted_disruption(s: Situation, job: JobView, failure: LastFailure) -> bool:
    """Whether a Job ended by a disruption that is counted here: once, since a Job is given up only once.

    The only pod of a Job is counted when it is seen, in `attempts`.
    """
    if failures.job_retry(job) is not Retry.FREE or _stopped_by_queue(s, job):
        return False
    last = s.record.last_failure
    counted = last is not None and last.pod is not None and last.pod == failure.pod
    return job.nodes > 1 or not (counted or job.suspended)


def _stopped_by_queue(s: Situation, job: JobView) -> bool:
    """Whether Kueue stopped the Job, which is counted by `kueue.eviction`."""
    workload = s.observed.workloads.get(job.uid)
    return workload is not None and workload.evicted is not None


def set_aside(s: Situation) -> RunRecord:
    """Return the record in which the run's training is given up because the user suspends it, which is no failure."""
    assert s.run and s.run.train
    return give_up(s, s.run.train, failures_of(s.run.train), None)


def give_up(s: Situation, job: JobView, failed: int, failure: LastFailure | None) -> RunRecord:
    """Return the record in which a Job, which brought so many failures, no longer counts as the run's.

    With more failures in all than backoffLimit allows, or a second crash at the same place, the run has failed.
    """
    record, run = s.record, s.record.run
    assert run is not None
    total = run.status.earlier_failures + failed
    known = record.attempts or Attempts()
    attempts = Attempts(failed=max(known.failed, total), preempted=known.preempted)
    crashed_at, place = _crashes(run, job, failure)
    given_up = {"stage": "Prepare", "given_up": job.uid, "earlier_failures": total, "crashed_at": crashed_at}
    status = run.status.model_copy(update=given_up)
    after = replace(
        record,
        run=Run(status, run.prepare if job is run.train else None, abandoned=job),
        attempts=attempts if attempts != Attempts() else None,
        last_failure=failure or record.last_failure,
    )
    if failure is None or (total <= s.spec.backoff_limit and place is None):
        return after
    over = ended(replace(run, status=status), "Failed", s.now)
    last = crashes.with_place(failure, place) if place else failures.after_attempts(failure, total)
    return replace(after, run=over, last_failure=last)


def _crashes(run: Run, job: JobView, failure: LastFailure | None) -> tuple[str | None, str | None]:
    """Return where the run crashed last, and the same if it was the second time in a row."""
    if failure and failure.reason == Reason.STUCK:
        return None, None
    before = run.status.crashed_at
    return crashes.last_place(job, before), crashes.repeated(job, before)
