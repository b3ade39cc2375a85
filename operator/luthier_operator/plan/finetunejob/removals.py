"""What a Job that takes versions out of storage has come to. Shared by `deletion` and `history`, which start them.

Reads views, decides nothing. Removing is safe to do again, so a result that got lost is simply made again.
"""

from collections.abc import Sequence

from luthier_api.documents import Removed
from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.finetunejob.situation import ObservedRuns
from luthier_operator.plan.pods import failures
from luthier_operator.plan.pods.diagnosis import Trouble, refusal, trouble_of


def outcome(job: JobView, pods: Sequence[PodView]) -> Removed | LastFailure | None:
    """Return what a Job that has ended came to; None if it ended well and its result is lost."""
    if job.outcome == "Failed":
        return failures.job_failure(job, pods)
    pod = next((pod for pod in failures.pods_of(job, pods) if pod.phase == "Succeeded"), None)
    if pod is None:
        return None
    word = failures.last_word(pod)
    if word and word.failure:
        return failures.failure_of(pod)
    if word and word.removed:
        return word.removed
    text = f"The pod {pod.name} ended well and left no result that Luthier understands; is it Luthier's image?"
    return failures.unusable(pod, text)


def trouble(job: JobView, observed: ObservedRuns) -> Trouble | None:
    """Return why a Job that has not ended does not get on."""
    if job.uid in observed.refusals:
        return refusal(observed.refusals[job.uid])
    pods = failures.pods_of(job, observed.pods)
    if pods and pods[0].phase == "Failed":
        failure = failures.failure_of(pods[0])
        return Trouble(Reason(failure.reason), failure.message)
    return trouble_of(pods)
