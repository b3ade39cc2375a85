"""Starting over: a training Job that must begin again from its newest checkpoint is given up, and counted once.

Kubernetes starts the pod of a run on one node again by itself. A Job is given up where it cannot: a pod that is stuck,
or pods on several nodes of which one was lost. A Job that waits in a queue is given up too when the user suspends the
run, because its own `suspend` belongs to the queue.

It takes two steps, so that it is safe to be cut off anywhere. First only the status is written: it names the Job by its
uid, and holds how many failures it brought. What is named so is no longer the run's training; then it is deleted, and
when it is gone a new one of the same name is made.
"""

from dataclasses import replace

from luthier_api.finetunejob import Attempts, LastFailure
from luthier_operator.model.views import JobView
from luthier_operator.plan.finetunejob import stuck
from luthier_operator.plan.finetunejob.attempts import failures_of
from luthier_operator.plan.finetunejob.runs import Memory, ended
from luthier_operator.plan.finetunejob.situation import Situation
from luthier_operator.plan.pods import failures


def due(s: Situation) -> Memory | None:
    """Return the memory in which the run's training is given up, if it has to start over by itself."""
    train = s.run.train if s.run else None
    if train is None:
        return None
    failed = failures_of(train, s.observed.pods)
    if train.nodes > 1 and train.outcome == "Failed":
        after = give_up(s, train, failed, failures.job_failure(train, s.observed.pods))
        # A disruption is counted here, since the pods may be gone, and that the Job is given up happens once.
        return after if failed or _taken_by_queue(s, train) else after.with_disruption()
    if s.stuck(train):
        status, deadline = s.resource.status, s.spec.progress_deadline_seconds
        pods = failures.pods_of(train, s.observed.pods)
        return give_up(s, train, failed + 1, stuck.failure(pods, status.progress, deadline, s.now))
    return None


def _taken_by_queue(s: Situation, job: JobView) -> bool:
    """Whether Kueue stopped the Job, which is counted where Kueue's words are; see `queueing`."""
    workload = s.observed.workloads.get(job.uid)
    return workload is not None and workload.evicted is not None


def set_aside(s: Situation) -> Memory:
    """Return the memory in which the run's training is given up because the user suspends it, which is no failure."""
    assert s.run and s.run.train
    return give_up(s, s.run.train, failures_of(s.run.train, s.observed.pods), None)


def give_up(s: Situation, job: JobView, failed: int, failure: LastFailure | None) -> Memory:
    """Return the memory in which a training Job, which brought so many failures, no longer counts as the run's.

    With more failures in all than backoffLimit allows, the run has failed.
    """
    memory, run = s.memory, s.memory.run
    assert run is not None
    total = run.status.earlier_failures + failed
    known = memory.attempts or Attempts()
    attempts = Attempts(failed=max(known.failed, total), preempted=known.preempted)
    status = run.status.model_copy(update={"stage": "Prepare", "given_up": job.uid, "earlier_failures": total})
    after = replace(
        memory,
        run=replace(run, status=status, train=None, abandoned=job),
        attempts=attempts if attempts != Attempts() else None,
        last_failure=failure or memory.last_failure,
    )
    if failure is None or total <= s.spec.backoff_limit:
        return after
    over = ended(replace(run, status=status), "Failed", s.now)
    return replace(after, run=over, last_failure=failures.after_attempts(failure, total))
