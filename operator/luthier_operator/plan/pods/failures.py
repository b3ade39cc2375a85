"""Why a pod ended, in one sentence, and what that means for trying again.

Reads views, decides nothing about the run. A pod may be broken or hostile, so nothing it says is taken on trust: a
termination message is parsed strictly, and where there is none the node, then the exit code speaks.
"""

import re
from collections.abc import Iterable, Sequence

from luthier_api.documents import DocumentError, Published, Result, read_result
from luthier_api.exitcodes import OUTCOMES, ExitCode, Retry, outcome_of
from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.pods.diagnosis import clip

DISRUPTIONS = frozenset({Reason.PREEMPTED, Reason.EVICTED, Reason.NODE_LOST})


def pods_of(job: JobView, pods: Iterable[PodView]) -> list[PodView]:
    """Return the pods that the Job made, newest first. Labels can be forged; an owner's uid cannot be guessed."""
    mine = [pod for pod in pods if pod.owner_uid == job.uid]
    return sorted(mine, key=lambda pod: (pod.created_at, pod.name), reverse=True)


def last_word(pod: PodView) -> Result | None:
    """Return the result that the pod left, if it left one that can be understood, and that can be."""
    try:
        result = read_result(pod.termination_message)
    except DocumentError:
        return None
    return None if result.published and not _is_version(result.published) else result


def _is_version(published: Published) -> bool:
    """Whether a name can be one, which goes into statuses and into other pods, and the folder is that version's."""
    name, uri = published.version, published.uri
    return bool(name) and "/" not in name and f"{name}{uri}".isprintable() and uri.endswith(f"/versions/{name}")


def ended_at(pod: PodView) -> str:
    """Return when a pod ended; one that no node ever started ended, as far as is known, when it was made."""
    return pod.finished_at or pod.created_at


def is_final(failure: LastFailure) -> bool:
    """Whether a pod failed so that no other is tried."""
    never = failure.exit_code is not None and outcome_of(failure.exit_code).retry is Retry.NEVER
    return never and failure.reason not in DISRUPTIONS


def is_disruption(pod: PodView) -> bool:
    """Whether the pod was stopped from outside, which is never its own failure and does not count."""
    return pod.disruption is not None or retry_of(pod) is Retry.FREE


def retry_of(pod: PodView) -> Retry:
    """Return whether what ended this pod is worth another try."""
    if pod.disruption is not None:
        return Retry.FREE
    if pod.terminated_reason == "OOMKilled":
        return Retry.NEVER
    if pod.exit_code is None:
        return Retry.COUNTED
    if pod.exit_code == ExitCode.KILLED and pod.deleting:
        return Retry.FREE  # it was asked to stop, and was not done in time
    return outcome_of(pod.exit_code).retry


def failure_of(pod: PodView) -> LastFailure:
    """Return why a pod ended badly: what it said itself, else what the node says, else what its exit code means."""
    said = last_word(pod)
    # Who was asked to stop knows only that; Kubernetes knows why.
    if said and said.failure and not (said.failure.reason is Reason.PREEMPTED and pod.disruption is not None):
        reason = said.failure.reason if said.failure.reason in _OF_A_POD else outcome_of(_code(pod)).reason
        return _failure(pod, reason, clip(said.failure.message, _LONGEST_WORD))
    if pod.disruption is not None:
        reason, what = _DISRUPTED.get(pod.disruption_reason, (Reason.PREEMPTED, "The pod was stopped"))
        return _failure(pod, reason, f"{what}: {clip(pod.disruption)} {_GOES_ON}")
    if pod.status_reason in _NODE_ENDED:
        return _failure(pod, _NODE_ENDED[pod.status_reason], _by_the_node(pod))
    outcome = outcome_of(ExitCode.KILLED if pod.terminated_reason == "OOMKilled" else _code(pod))
    return _failure(pod, outcome.reason, f"{_what_happened(pod, outcome.reason)} {_hint(pod, outcome.hint)}")


# A pod may say anything, and a failure by the name of Serving would help nobody.
_OF_A_POD = frozenset(outcome.reason for outcome in OUTCOMES.values())
_LONGEST_WORD = 1500
_GOES_ON = "Another pod goes on from the newest checkpoint; this does not count towards backoffLimit."
# The reasons of Kubernetes' DisruptionTarget condition.
_DISRUPTED = {
    "PreemptionByScheduler": (Reason.PREEMPTED, "The pod had to make room for one of higher priority"),
    "EvictionByEvictionAPI": (Reason.EVICTED, "The pod was evicted, as when a node is drained"),
    "TerminationByKubelet": (
        Reason.EVICTED,
        "The node stopped the pod, because it shuts down or runs short",
    ),
    "DeletionByTaintManager": (Reason.NODE_LOST, "The node was lost or tainted"),
    "DeletionByPodGC": (Reason.NODE_LOST, "The node is gone"),
}
_NODE_ENDED = {"Evicted": Reason.EVICTED, "NodeLost": Reason.NODE_LOST}


def job_failure(job: JobView, pods: Iterable[PodView], earlier: int = 0) -> LastFailure:
    """Return why a Job failed: for its deadline, or for what its telling pod failed of.

    Args:
        job: a Job that failed.
        pods: all pods that are known.
        earlier: failures of the Jobs that this one replaced.
    """
    if job.reason == "DeadlineExceeded":
        text = (
            "The training took longer than activeDeadlineSeconds allows and was stopped; its checkpoints stay. Raise "
            "activeDeadlineSeconds, or ask for less work or more GPUs."
        )
        return LastFailure(reason=Reason.DEADLINE_EXCEEDED, message=text, at=job.ended_at or None)
    failed = telling_pod(job, pods)
    if failed is None:
        return _without_pod(job)
    return after_attempts(failure_of(failed), earlier + job.failed if job.reason == "BackoffLimitExceeded" else 0)


def after_attempts(failure: LastFailure, attempts: int) -> LastFailure:
    """Return the failure with how many attempts failed, where there was more than one."""
    if attempts <= 1:
        return failure
    return failure.model_copy(update={"message": f"{attempts} attempts failed, the last: {failure.message}"})


def telling_pod(job: JobView, pods: Iterable[PodView]) -> PodView | None:
    """Return the pod that tells why a Job failed: the newest, or of several that trained together, the cause.

    When one of those is lost, the others end too, and only say that they lost it or were asked to stop.
    """
    failed = [pod for pod in pods_of(job, pods) if pod.phase == "Failed"]
    if job.nodes == 1:
        return failed[0] if failed else None
    return min(failed, key=lambda pod: (_telling(pod), ended_at(pod), pod.index), default=None)


def _telling(pod: PodView) -> int:
    if pod.disruption is not None:
        return 1
    return {Retry.NEVER: 0, Retry.COUNTED: 2, Retry.FREE: 3}[retry_of(pod)]


def job_retry(job: JobView, pods: Sequence[PodView]) -> Retry:
    """Return whether a Job of several nodes that failed is worth another try. Its pods may be gone already."""
    if job.reason == "DeadlineExceeded":
        return Retry.NEVER
    pod = telling_pod(job, pods)
    if pod is not None:
        return retry_of(pod)
    if _DISRUPTION.search(job.message):
        return Retry.FREE
    code = _EXIT_CODE.search(job.message)
    return outcome_of(int(code[1])).retry if code else Retry.COUNTED


# The Job controller's own words about the pod that matched a rule of podFailurePolicy.
_DISRUPTION = re.compile(r"condition DisruptionTarget")
_EXIT_CODE = re.compile(r"exit code (\d{1,3})\b")


def _without_pod(job: JobView) -> LastFailure:
    """Return why a Job failed whose pods are gone, from what the Job controller wrote down."""
    at = job.ended_at or None
    if _DISRUPTION.search(job.message):
        text = f"A pod of the run was evicted, preempted, or lost with its node. {_GOES_ON}"
        return LastFailure(reason=Reason.PREEMPTED, message=text, at=at)
    if code := _EXIT_CODE.search(job.message):
        outcome = outcome_of(int(code[1]))
        text = f"A pod ended with exit code {code[1]} and is gone. {outcome.hint}"
        return LastFailure(reason=outcome.reason, message=text, exit_code=int(code[1]), at=at)
    text = f"The Job {job.name} failed, and none of its pods is left to say why: {clip(job.message or job.reason)}"
    return LastFailure(reason=Reason.CRASHED, message=text, at=at)


def unusable(pod: PodView | None, message: str, reason: Reason = Reason.CRASHED) -> LastFailure:
    """Return the failure of a pod that ended well and whose result cannot be used."""
    return LastFailure(
        reason=reason,
        message=message,
        exit_code=pod.exit_code if pod else None,
        pod=pod.name if pod else None,
        at=ended_at(pod) or None if pod else None,
    )


def _code(pod: PodView) -> int:
    return pod.exit_code if pod.exit_code is not None else ExitCode.CRASHED


def _hint(pod: PodView, hint: str) -> str:
    return f"kubectl logs {pod.name} says where." if hint == outcome_of(ExitCode.CRASHED).hint else hint


def _by_the_node(pod: PodView) -> str:
    said = clip(pod.status_message or pod.status_reason)
    if "ephemeral" in said or "emptydir" in said.lower():
        return f"{said} Give the pod more room: resources.limits with ephemeral-storage."
    return f"The node ended the pod: {said}"


def _what_happened(pod: PodView, reason: Reason) -> str:
    if reason is Reason.OUT_OF_MEMORY and pod.terminated_reason == "OOMKilled":
        limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
        return f"The pod was killed at its memory limit{limit}."
    if pod.exit_code is None:
        return clip(pod.status_message or pod.status_reason or "The pod ended without an exit code")
    return f"The pod ended with exit code {pod.exit_code} and no result."


def _failure(pod: PodView, reason: Reason, message: str) -> LastFailure:
    return LastFailure(reason=reason, message=message, exit_code=pod.exit_code, pod=pod.name, at=ended_at(pod) or None)
