"""What is wrong with a pod, in one sentence: why it does not start, why it ended, and what its last word was.

Reads views, decides nothing about the run. A pod may be broken or hostile, so nothing it says is taken on trust: a
termination message is parsed strictly, and where there is none the exit code speaks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from luthier_api.documents import DocumentError, Failure, Result, read_result
from luthier_api.exitcodes import ExitCode, outcome_of
from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.observed import JobView, PodView

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# A kubelet's message may quote a whole registry answer.
_LONGEST = 700


@dataclass(frozen=True)
class Trouble:
    """Why a pod does not run, although nothing has failed yet: it may heal."""

    reason: Reason
    message: str


def pods_of(job: JobView, pods: Iterable[PodView]) -> list[PodView]:
    """Return the pods that the Job made, newest first. Labels can be forged; an owner's uid cannot be guessed."""
    mine = [pod for pod in pods if pod.owner_uid == job.uid]
    return sorted(mine, key=lambda pod: (pod.created_at, pod.name), reverse=True)


def trouble_of(pods: Iterable[PodView]) -> Trouble | None:
    """Return why the first of these pods that is stuck does not run."""
    for pod in pods:
        if pod.deleting or pod.ended:
            continue
        if pod.waiting_reason in _IMAGE:
            said = clip(pod.waiting_message or pod.waiting_reason)
            return Trouble(
                Reason.IMAGE_PULL_FAILED,
                f"The image cannot be pulled: {said} Correct its name, or name imagePullSecrets that may pull it.",
            )
        if pod.waiting_reason in _CONFIG:
            said = clip(pod.waiting_message or pod.waiting_reason)
            return Trouble(Reason.CONFIG_ERROR, f"The pod cannot start: {said} Repair that, and it goes on by itself.")
        if pod.unschedulable is not None and not pod.ip:
            return Trouble(
                Reason.UNSCHEDULABLE,
                f"No node takes the pod: {clip(pod.unschedulable) or 'the scheduler gave no reason.'}",
            )
    return None


def last_word(pod: PodView) -> Result | None:
    """Return the result that the pod left, if it left one that can be understood."""
    try:
        return read_result(pod.termination_message)
    except DocumentError:
        return None


def failure_of(pod: PodView) -> LastFailure:
    """Return why a pod ended badly: what it said itself, else what the node says, else what its exit code means."""
    said = last_word(pod)
    if said and said.failure:
        return _failure(pod, said.failure)
    if pod.disruption is not None:
        return _failure(pod, Failure(reason=Reason.PREEMPTED, message=f"The pod was stopped: {clip(pod.disruption)}"))
    code = pod.exit_code if pod.exit_code is not None else ExitCode.CRASHED
    outcome = outcome_of(ExitCode.KILLED if pod.terminated_reason == "OOMKilled" else code)
    return _failure(
        pod, Failure(reason=outcome.reason, message=f"{_what_happened(pod, outcome.reason)} {outcome.hint}")
    )


def job_failure(job: JobView, pods: Iterable[PodView]) -> LastFailure:
    """Return why a Job failed: for its deadline, or for what its last pod failed of."""
    if job.reason == "DeadlineExceeded":
        text = f"The run took longer than activeDeadlineSeconds allows: {clip(job.message)}"
        return LastFailure(reason=Reason.DEADLINE_EXCEEDED, message=text)
    failed = next((pod for pod in pods_of(job, pods) if pod.phase == "Failed"), None)
    if failed is None:
        return LastFailure(reason=Reason.CRASHED, message=f"The Job {job.name} failed: {clip(job.message)}")
    failure = failure_of(failed)
    if job.reason == "BackoffLimitExceeded" and job.failed > 1:
        return failure.model_copy(update={"message": f"{job.failed} attempts failed, the last: {failure.message}"})
    return failure


def unusable(pod: PodView | None, message: str, reason: Reason = Reason.CRASHED) -> LastFailure:
    """Return the failure of a pod that ended well and whose result cannot be used."""
    return LastFailure(
        reason=reason, message=message, exit_code=pod.exit_code if pod else None, pod=pod.name if pod else None
    )


def clip(text: str) -> str:
    """Return the text as the end of a sentence, on one line, not longer than a person reads."""
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    return line if not line or line.endswith((".", "…", "!", "?")) else line + "."


def _what_happened(pod: PodView, reason: Reason) -> str:
    if reason is Reason.OUT_OF_MEMORY and pod.terminated_reason == "OOMKilled":
        limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
        return f"The pod was killed at its memory limit{limit}."
    if pod.exit_code is None:
        return clip(pod.status_message or pod.status_reason or "The pod ended without an exit code")
    return f"The pod ended with exit code {pod.exit_code} and no result."


def _failure(pod: PodView, failure: Failure) -> LastFailure:
    return LastFailure(reason=failure.reason, message=failure.message, exit_code=pod.exit_code, pod=pod.name)
