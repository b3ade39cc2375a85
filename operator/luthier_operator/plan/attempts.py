"""How often a run's pods ended early: failures, which are limited, and disruptions, which are not.

Kubernetes counts the failures of a Job. It does not count disruptions, and a pod that was evicted or preempted is soon
gone, so each is counted when it is first seen: when it ended after the failure that the status remembers last.
"""

from collections.abc import Sequence

from luthier_api.exitcodes import Retry
from luthier_api.finetunejob import Attempts, LastFailure
from luthier_operator.observed import JobView, PodView
from luthier_operator.plan import failures


def attempts(
    jobs: Sequence[JobView],
    pods: Sequence[PodView],
    earlier_failures: int,
    before: Attempts | None,
    last: LastFailure | None,
) -> Attempts | None:
    """Return the attempts of a run whose Jobs these are; None while nothing went wrong.

    Args:
        jobs: its Jobs, without one that was given up.
        pods: all pods that are known.
        earlier_failures: failures of the Jobs that were given up.
        before: what was counted before.
        last: the failure that is remembered; what ended before it is counted already.
    """
    known = before or Attempts()
    failed = max(known.failed, earlier_failures + sum(failures_of(job, pods) for job in jobs))
    preempted = known.preempted + sum(_new_disruptions(job, pods, last) for job in jobs)
    return Attempts(failed=failed, preempted=preempted) if failed or preempted else before


def failures_of(job: JobView, pods: Sequence[PodView]) -> int:
    """Return the failures of a Job; pods that train together fail together, once."""
    if job.nodes == 1:
        return job.failed
    return int(job.outcome == "Failed" and failures.job_retry(job, pods) is not Retry.FREE)


def latest(job: JobView | None, pods: Sequence[PodView], last: LastFailure | None) -> LastFailure | None:
    """Return why the newest pod that failed did, or what is remembered if that is newer."""
    telling = _telling(job, pods) if job else None
    if job is None or telling is None or _stopped_by_queue(job, telling):
        return last
    if not (_is_new(telling, last) or (last and telling.name == last.pod)):
        return last
    return failures.failure_of(telling)


def _telling(job: JobView, pods: Sequence[PodView]) -> PodView | None:
    together = job.nodes > 1
    return None if together and job.outcome is None else failures.telling_pod(job, pods)


def _new_disruptions(job: JobView, pods: Sequence[PodView], last: LastFailure | None) -> int:
    """Count disruptions that were not counted yet. A Job that rests was stopped by the user."""
    if job.suspended and job.queue is None:
        return 0
    if job.nodes > 1:
        telling = _telling(job, pods)
        ended = [telling] if telling else []
    else:
        ended = [pod for pod in failures.pods_of(job, pods) if pod.phase == "Failed"]
    counted = [pod for pod in ended if failures.is_disruption(pod) and not _stopped_by_queue(job, pod)]
    return sum(_is_new(pod, last) for pod in counted)


def _stopped_by_queue(job: JobView, pod: PodView) -> bool:
    """Whether a pod was taken away with its queued Job's turn, which the queue itself tells of; see `queueing`."""
    return job.queue is not None and pod.deleting and pod.disruption is None and failures.is_disruption(pod)


def _is_new(pod: PodView, last: LastFailure | None) -> bool:
    return last is None or (pod.name != last.pod and failures.ended_at(pod) >= (last.at or ""))
