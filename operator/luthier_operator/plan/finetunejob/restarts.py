"""Starting over: a training Job that must begin again from its newest checkpoint is given up, and counted once.

Kubernetes restarts the pod of a run on one node by itself. A Job is given up where Kubernetes cannot: a pod is stuck,
or one of the pods on several nodes was lost. A Job that waits in a queue is given up too when the user suspends the
run, because its own `suspend` belongs to the queue.

It takes two steps, so that it may be cut off anywhere. First only the status is written: it names the Job by its uid,
and holds how many failures it brought. A Job that is named so is no longer the run's training; it is then deleted, and
when it is gone a new one of the same name is created.
"""

from dataclasses import replace

from luthier_api.finetunejob import Attempts, LastFailure
from luthier_operator.model.views import JobView
from luthier_operator.plan.finetunejob import stuck
from luthier_operator.plan.finetunejob.attempts import failures_of
from luthier_operator.plan.finetunejob.runs import RunRecord, ended
from luthier_operator.plan.finetunejob.situation import Situation
from luthier_operator.plan.pods import failures


def due(s: Situation) -> RunRecord | None:
    """Return the record in which the run's training is given up, if it has to start over by itself."""
    train = s.run.train if s.run else None
    if train is None:
        return None
    failed = failures_of(train)
    if train.nodes > 1 and train.outcome == "Failed":
        after = give_up(s, train, failed, failures.job_failure(train))
        # A disruption is counted here, since the pods may be gone, and a Job is given up only once.
        return after if failed or _stopped_by_queue(s, train) else after.with_disruption()
    if s.stuck(train):
        deadline_s = s.spec.progress_deadline_seconds
        return give_up(s, train, failed + 1, stuck.failure(train.pods, s.resource.status.progress, deadline_s, s.now))
    return None


def _stopped_by_queue(s: Situation, job: JobView) -> bool:
    """Whether Kueue stopped the Job, which is counted by `kueue.eviction`."""
    workload = s.observed.workloads.get(job.uid)
    return workload is not None and workload.evicted is not None


def set_aside(s: Situation) -> RunRecord:
    """Return the record in which the run's training is given up because the user suspends it, which is no failure."""
    assert s.run and s.run.train
    return give_up(s, s.run.train, failures_of(s.run.train), None)


def give_up(s: Situation, job: JobView, failed: int, failure: LastFailure | None) -> RunRecord:
    """Return the record in which a training Job, which brought so many failures, no longer counts as the run's.

    With more failures in all than backoffLimit allows, the run has failed.
    """
    record, run = s.record, s.record.run
    assert run is not None
    total = run.status.earlier_failures + failed
    known = record.attempts or Attempts()
    attempts = Attempts(failed=max(known.failed, total), preempted=known.preempted)
    status = run.status.model_copy(update={"stage": "Prepare", "given_up": job.uid, "earlier_failures": total})
    after = replace(
        record,
        run=replace(run, status=status, train=None, abandoned=job),
        attempts=attempts if attempts != Attempts() else None,
        last_failure=failure or record.last_failure,
    )
    if failure is None or total <= s.spec.backoff_limit:
        return after
    over = ended(replace(run, status=status), "Failed", s.now)
    return replace(after, run=over, last_failure=failures.after_attempts(failure, total))
