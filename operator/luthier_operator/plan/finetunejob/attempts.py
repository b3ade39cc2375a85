"""How often a run's pods ended early: failures, which are limited, and disruptions, which are not.

Kubernetes counts the failures of a Job. It does not count disruptions, and a pod that was evicted or preempted is soon
gone, so each is counted when it is first seen: when it ended after the failure that the status remembers last. Pods
that train together end together, and with them their Job, which is counted when it is given up; see `restarts`.
"""

from collections.abc import Sequence
from datetime import datetime

from luthier_api.exitcodes import Retry
from luthier_api.finetunejob import Attempts, LastFailure
from luthier_operator.model.timestamps import EARLIEST, parse_time
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.pods import failures


def attempts(
    jobs: Sequence[JobView], earlier_failures: int, before: Attempts | None, last: LastFailure | None
) -> Attempts | None:
    """Return the attempts of a run whose Jobs these are; None while nothing went wrong.

    Args:
        jobs: its Jobs, without one that was given up.
        earlier_failures: failures of the Jobs that were given up.
        before: what was counted before.
        last: the failure that is remembered; what ended before it is counted already.
    """
    known = before or Attempts()
    failed = max(known.failed, earlier_failures + sum(failures_of(job) for job in jobs))
    disrupted = [pod for job in jobs for pod in _disrupted(job)]
    if last is not None and last.at is None:
        preempted = max(known.preempted, len(disrupted))  # an older release wrote no time
    else:
        preempted = known.preempted + sum(order(pod) > _remembered(last) for pod in disrupted)
    return Attempts(failed=failed, preempted=preempted) if failed or preempted else before


def failures_of(job: JobView) -> int:
    """Return the failures of a Job; pods that train together fail together, once."""
    if job.nodes == 1:
        if job.lingering:  # Kubernetes has not counted it yet
            return job.failed + (job.outcome == "Failed" and failures.job_retry(job) not in _NO_FAILURE)
        # Kubernetes counts every pod with exit code 137 as failed, also one that was only stopped.
        stopped = failures.starts_over(job) and failures.job_retry(job) is Retry.FREE
        return max(0, job.failed - (stopped or failures.yields(job)))
    return int(job.outcome == "Failed" and failures.job_retry(job) not in _NO_FAILURE)


_NO_FAILURE = (Retry.FREE, Retry.PREPARE)


def latest(job: JobView | None, last: LastFailure | None) -> LastFailure | None:
    """Return why the pod that failed last did, or what is remembered if that is newer."""
    newest = max(failed_pods(job), key=order, default=None) if job else None
    if newest is None or (last is not None and last.at is not None and order(newest) < _remembered(last)):
        return last
    return failures.failure_of(newest)


def _disrupted(job: JobView) -> list[PodView]:
    """Return the pods whose end was a disruption. Those of a Job that is suspended were stopped by the user."""
    if job.nodes > 1 or (job.suspended and job.queue is None):
        return []
    return [pod for pod in failed_pods(job) if failures.is_disruption(pod)]


def failed_pods(job: JobView) -> list[PodView]:
    """Return a Job's pods that failed; of those that trained together, the one that was the cause."""
    if job.nodes == 1:
        failed = [pod for pod in job.pods if pod.phase == "Failed"]
    else:
        cause = failures.root_cause_pod(job) if job.outcome is not None else None
        failed = [cause] if cause else []
    if failures.yields(job):  # to another run, which is no failure
        failed = [pod for pod in failed if failures.retry_of(pod) is not Retry.PREPARE]
    return [pod for pod in failed if not _stopped_by_queue(job, pod)]


def _stopped_by_queue(job: JobView, pod: PodView) -> bool:
    """Whether a pod was stopped because Kueue suspended its Job, which is counted by `kueue.eviction`."""
    return job.queue is not None and pod.deleting and pod.disruption is None and failures.is_disruption(pod)


def order(pod: PodView) -> tuple[datetime, str]:
    """Return what pods are ordered by: totally, so that whatever is remembered as the last stands for all before it."""
    return failures.ended_at(pod) or EARLIEST, pod.name


def _remembered(last: LastFailure | None) -> tuple[datetime, str]:
    return (parse_time(last.at) or EARLIEST, last.pod or "") if last else (EARLIEST, "")
