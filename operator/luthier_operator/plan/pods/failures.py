"""Why a pod or a Job failed, in one sentence, and whether that is worth another try.

Reads views, decides nothing about the run. A pod may be broken or hostile, so nothing it says is taken on trust: its
termination message is parsed strictly; without one, what the node reports counts, and then the exit code.
"""

import re
from datetime import datetime

from luthier_api.documents import DocumentError, Published, Result, read_result
from luthier_api.exitcodes import OUTCOMES, ExitCode, Retry, outcome_of
from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.timestamps import EARLIEST, rfc3339_if_known
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.pods.diagnosis import clip

DISRUPTIONS = frozenset({Reason.PREEMPTED, Reason.EVICTED, Reason.NODE_LOST})


def result_of(pod: PodView) -> Result | None:
    """Return the result in the pod's termination message, if there is one that can be parsed and can be true."""
    try:
        result = read_result(pod.termination_message)
    except DocumentError:
        return None
    return None if result.published and not _is_version(result.published) else result


def _is_version(published: Published) -> bool:
    """Whether it names a version and that version's folder: both go into statuses and into other pods."""
    name, uri = published.version, published.uri
    return bool(name) and "/" not in name and f"{name}{uri}".isprintable() and uri.endswith(f"/versions/{name}")


def ended_at(pod: PodView) -> datetime | None:
    """Return when a pod ended. For one that never started, that is when it was created."""
    return pod.finished_at or pod.created_at


def is_final(failure: LastFailure) -> bool:
    """Whether no other pod is tried after such a failure."""
    if failure.exit_code == ExitCode.KILLED:
        return failure.reason == Reason.OUT_OF_MEMORY
    never = failure.exit_code is not None and outcome_of(failure.exit_code).retry is Retry.NEVER
    return never and failure.reason not in DISRUPTIONS


def is_disruption(pod: PodView) -> bool:
    """Whether the pod was stopped from outside, which does not count as a failure."""
    return pod.disruption is not None or retry_of(pod) is Retry.FREE


def retry_of(pod: PodView) -> Retry:
    """Return whether another pod is tried after this one."""
    if pod.disruption is not None:
        return Retry.FREE
    if pod.terminated_reason == "OOMKilled":
        return Retry.NEVER
    if pod.exit_code is None:
        return Retry.COUNTED
    if pod.exit_code == ExitCode.KILLED:
        return _retry_of_killed(pod)
    return outcome_of(pod.exit_code).retry


def _retry_of_killed(pod: PodView) -> Retry:
    """Return whether another pod is tried after one that was killed, for which memory is one cause of several."""
    if _interrupted(pod):
        return Retry.FREE
    result = result_of(pod)
    of_memory = result and result.failure and result.failure.reason is Reason.OUT_OF_MEMORY
    return Retry.NEVER if of_memory else Retry.COUNTED


def _interrupted(pod: PodView) -> bool:
    """Whether exit code 137 says only that the pod was stopped, or that its node does not know how it ended.

    The kubelet gives that code also to a container that never started and whose pod is deleted, and to one that was
    gone after a restart of the node: its reason is then ContainerStatusUnknown.
    """
    return pod.deleting or pod.terminated_reason == "ContainerStatusUnknown" or pod.started_at is None


def failure_of(pod: PodView) -> LastFailure:
    """Return why a pod failed: by its own result, else by what the node reports, else by its exit code."""
    result = result_of(pod)
    # A pod that was asked to stop knows only that; Kubernetes knows why.
    if result and result.failure and not (result.failure.reason is Reason.PREEMPTED and pod.disruption is not None):
        reason = result.failure.reason if result.failure.reason in _OF_A_POD else outcome_of(_code(pod)).reason
        return _failure(pod, reason, clip(result.failure.message, _LONGEST_MESSAGE))
    if pod.disruption is not None:
        reason, what = _DISRUPTED.get(pod.disruption_reason, (Reason.PREEMPTED, "The pod was stopped"))
        return _failure(pod, reason, f"{what}: {clip(pod.disruption)} {CONTINUES}")
    if pod.status_reason in _NODE_ENDED:
        return _failure(pod, _NODE_ENDED[pod.status_reason], _by_the_node(pod))
    if pod.terminated_reason in _NEVER_STARTED:
        return _failure(pod, Reason.CONFIG_ERROR, f"The container did not start: {clip(pod.termination_message)}")
    if pod.exit_code == ExitCode.KILLED and pod.terminated_reason != "OOMKilled":
        return _killed(pod)
    outcome = outcome_of(ExitCode.KILLED if pod.terminated_reason == "OOMKilled" else _code(pod))
    return _failure(pod, outcome.reason, f"{_what_happened(pod, outcome.reason)} {_hint(pod, outcome.hint)}")


# A pod may report anything; a reason that only others can know would mislead.
_OF_A_POD = frozenset(outcome.reason for outcome in OUTCOMES.values())
_LONGEST_MESSAGE = 1500
CONTINUES = "Another pod continues from the newest checkpoint; this does not count towards backoffLimit."
# The reasons of Kubernetes' DisruptionTarget condition.
_DISRUPTED = {
    "PreemptionByScheduler": (Reason.PREEMPTED, "The pod was preempted by one of higher priority"),
    "EvictionByEvictionAPI": (Reason.EVICTED, "The pod was evicted, as when a node is drained"),
    "TerminationByKubelet": (
        Reason.EVICTED,
        "The node stopped the pod, because it is shutting down or short of resources",
    ),
    "DeletionByTaintManager": (Reason.NODE_LOST, "The node was lost or tainted"),
    "DeletionByPodGC": (Reason.NODE_LOST, "The node is gone"),
}
# Reasons of a container that the runtime could not start; its message is then the runtime's.
_NEVER_STARTED = ("StartError", "ContainerCannotRun")
_NODE_ENDED = {"Evicted": Reason.EVICTED, "NodeLost": Reason.NODE_LOST}


def job_failure(job: JobView, earlier: int = 0) -> LastFailure:
    """Return why a Job failed: for its deadline, or for the reason of the pod that caused it.

    Args:
        job: a Job that failed.
        earlier: failures of the Jobs that this one replaced.
    """
    if job.reason == "DeadlineExceeded":
        text = (
            "The training took longer than activeDeadlineSeconds allows and was stopped; its checkpoints stay. Raise "
            "activeDeadlineSeconds, reduce the work, or request more GPUs."
        )
        return LastFailure(reason=Reason.DEADLINE_EXCEEDED, message=text, at=rfc3339_if_known(job.ended_at))
    failed = root_cause_pod(job)
    if failed is None:
        return _without_pod(job)
    return after_attempts(failure_of(failed), earlier + job.failed if job.reason == "BackoffLimitExceeded" else 0)


def after_attempts(failure: LastFailure, attempts: int) -> LastFailure:
    """Return the failure, with the number of attempts that failed if there was more than one."""
    if attempts <= 1:
        return failure
    return failure.model_copy(update={"message": f"{attempts} attempts failed, the last: {failure.message}"})


def root_cause_pod(job: JobView) -> PodView | None:
    """Return the pod that shows why a Job failed: the newest, or of several that trained together, the cause.

    When one of those is lost, the others end too, and report only that they lost it or were asked to stop.
    """
    failed = [pod for pod in job.pods if pod.phase == "Failed"]
    if job.nodes == 1:
        return failed[0] if failed else None
    return min(failed, key=lambda pod: (_distance_from_cause(pod), ended_at(pod) or EARLIEST, pod.index), default=None)


def _distance_from_cause(pod: PodView) -> int:
    if pod.disruption is not None:
        return 1
    return {Retry.NEVER: 0, Retry.PREPARE: 0, Retry.COUNTED: 2, Retry.FREE: 3}[retry_of(pod)]


def starts_over(job: JobView) -> bool:
    """Whether a Job failed of something that may not happen again, and does not try again by itself.

    That is one whose pods train together, one whose pod another container keeps from ending, and one that ended with
    exit code 137, as it does when memory is short.
    """
    if job.outcome != "Failed" or job_retry(job) in (Retry.NEVER, Retry.PREPARE):
        return False
    pod = root_cause_pod(job)
    killed = (pod.exit_code if pod else _exit_code(job)) == ExitCode.KILLED
    return job.nodes > 1 or job.lingering or (killed and job.reason == "PodFailurePolicy")


def yields(job: JobView) -> bool:
    """Whether a training has ended because another run trains the same, which prepare waits for."""
    return job.stage == "train" and job.outcome == "Failed" and job_retry(job) is Retry.PREPARE


def job_retry(job: JobView) -> Retry:
    """Return whether a Job that failed is tried again. Its pods may be gone already."""
    if job.reason == "DeadlineExceeded":
        return Retry.NEVER
    pod = root_cause_pod(job)
    if pod is not None:
        return retry_of(pod)
    if _DISRUPTION.search(job.message):
        return Retry.FREE
    code = _exit_code(job)
    if code == ExitCode.KILLED:
        return Retry.FREE  # a pod that was short of memory stays with its Job; this one was deleted
    return Retry.COUNTED if code is None else outcome_of(code).retry


# From the message of the Job controller about the pod that matched a rule of podFailurePolicy.
_DISRUPTION = re.compile(r"condition DisruptionTarget")
_EXIT_CODE = re.compile(r"exit code (\d{1,3})\b")
_POD = re.compile(r" for pod [^/\s]+/(\S+) ")


def _exit_code(job: JobView) -> int | None:
    found = _EXIT_CODE.search(job.message)
    return int(found[1]) if found else None


def _without_pod(job: JobView) -> LastFailure:
    """Return why a Job failed whose pods are gone, from the message of the Job controller."""
    at = rfc3339_if_known(job.ended_at)
    if _DISRUPTION.search(job.message):
        text = f"A pod of the run was evicted, preempted or lost with its node. {CONTINUES}"
        return LastFailure(reason=Reason.PREEMPTED, message=text, at=at)
    named = _POD.search(job.message)
    pod, code = named[1] if named else None, _exit_code(job)
    if code == ExitCode.KILLED:
        text = f"A pod was deleted before its end was seen. {CONTINUES}"
        return LastFailure(reason=Reason.PREEMPTED, message=text, exit_code=code, pod=pod, at=at)
    if code is not None:
        outcome = outcome_of(code)
        text = f"A pod ended with exit code {code} and is gone. {outcome.hint}"
        return LastFailure(reason=outcome.reason, message=text, exit_code=code, pod=pod, at=at)
    why = clip(job.message or job.reason)
    text = f"The Job {job.name} failed, and its pods are gone. The Job controller reports: {why}"
    return LastFailure(reason=Reason.CRASHED, message=text, at=at)


def no_result(pod: PodView) -> LastFailure:
    """Return the failure of a pod that ended with exit code 0 and left no result that can be read."""
    text = f"The pod {pod.name} ended with exit code 0 but left no result that Luthier understands: is its image ours?"
    return _failure(pod, Reason.CRASHED, text)


def result_of_another_run(pod: PodView) -> LastFailure:
    """Return the failure of a pod that ended with exit code 0 and left a result that cannot be its own."""
    text = f"The pod {pod.name} reported the result of another run, which was not accepted. See its log."
    return _failure(pod, Reason.INTEGRITY_ERROR, text)


def _code(pod: PodView) -> int:
    return pod.exit_code if pod.exit_code is not None else ExitCode.CRASHED


def _killed(pod: PodView) -> LastFailure:
    """Return why a pod was killed that nothing says was short of memory."""
    if pod.deleting:
        what = "was deleted" if pod.started_at else "was deleted before it had started"
        return _failure(pod, Reason.PREEMPTED, f"The pod {what}. {CONTINUES}")
    if _interrupted(pod):
        where = f" {pod.node}" if pod.node else ""
        text = f"The node{where} does not know how the pod ended, as after a restart of the node. {CONTINUES}"
        return _failure(pod, Reason.NODE_LOST, text)
    text = (
        "The pod was killed (SIGKILL), and Kubernetes does not say by whom. If it happens again, see the log of its "
        "node, or raise resources.limits.memory."
    )
    return _failure(pod, Reason.CRASHED, text)


def _hint(pod: PodView, hint: str) -> str:
    return f"See kubectl logs {pod.name}." if hint == outcome_of(ExitCode.CRASHED).hint else hint


def _by_the_node(pod: PodView) -> str:
    message = clip(pod.status_message or pod.status_reason)
    if "ephemeral" in message or "emptydir" in message.lower():
        return f"{message} Give the pod more disk space: set ephemeral-storage in resources.limits."
    return f"The node stopped the pod: {message}"


def _what_happened(pod: PodView, reason: Reason) -> str:
    if reason is Reason.OUT_OF_MEMORY and pod.terminated_reason == "OOMKilled":
        limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
        return f"The pod was killed at its memory limit{limit}."
    if pod.exit_code is None:
        return clip(pod.status_message or pod.status_reason or "The pod ended without an exit code")
    return f"The pod ended with exit code {pod.exit_code} and left no result."


def _failure(pod: PodView, reason: Reason, message: str) -> LastFailure:
    return LastFailure(
        reason=reason, message=message, exit_code=pod.exit_code, pod=pod.name, at=rfc3339_if_known(ended_at(pod))
    )
