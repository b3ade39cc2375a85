"""What a Job that takes versions out of storage has come to. `deletion` and `version_pruning` start such Jobs.

Reads views, decides nothing. Removing is safe to repeat, so a result that is lost is simply produced again.
"""

from collections.abc import Mapping

from luthier_api.documents import Removed
from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.views import JobView
from luthier_operator.plan.pods import failures
from luthier_operator.plan.pods.diagnosis import Diagnosis, diagnose, diagnose_event


def outcome(job: JobView) -> Removed | LastFailure | None:
    """Return what a Job that has ended came to; None if it ended well and its result is lost."""
    if job.outcome == "Failed":
        return failures.job_failure(job)
    pod = next((pod for pod in job.pods if pod.phase == "Succeeded"), None)
    if pod is None:
        return None
    result = failures.result_of(pod)
    if result and result.failure:
        return failures.failure_of(pod)
    if result and result.removed:
        return result.removed
    return failures.no_result(pod)


def diagnosis_of(job: JobView, pod_events: Mapping[str, str]) -> Diagnosis | None:
    """Return why a Job that has not ended makes no progress; `pod_events` as in `ObservedRuns`."""
    if job.uid in pod_events:
        return diagnose_event(pod_events[job.uid])
    if job.pods and job.pods[0].phase == "Failed":
        failure = failures.failure_of(job.pods[0])
        return Diagnosis(Reason(failure.reason), failure.message)
    return diagnose(job.pods)
