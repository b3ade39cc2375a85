"""What is said of a pod, from its status alone, and of what the cluster refuses; a pod may be broken or hostile.

Each class of failure has its own reason, its own rule for trying again, and one sentence of what to do next.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode, Retry
from luthier_api.reasons import Reason
from luthier_operator.model.parse import pod_view
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.pods import failures
from luthier_operator.plan.pods.diagnosis import diagnose, diagnose_event

pytestmark = pytest.mark.unit


UNKNOWN = "ContainerStatusUnknown"
LOST = "The container could not be located when the pod was terminated"


def pod(**status: Any) -> PodView:
    container: dict[str, Any] = {"resources": {"limits": {"memory": "2Gi"}}}
    metadata = {"name": "p", "ownerReferences": [{"uid": "job", "controller": True}]}
    return pod_view({"metadata": metadata, "spec": {"containers": [container], "nodeName": "n1"}, "status": status})


def ended(code: int, message: str = "", reason: str = "Error", **status: Any) -> PodView:
    started = (
        None if reason == UNKNOWN else "1970-01-01T00:00:00Z" if reason == "StartError" else "2026-01-01T00:00:00Z"
    )
    state = {"terminated": {"exitCode": code, "message": message, "reason": reason, "startedAt": started}}
    return pod(phase="Failed", containerStatuses=[{"state": state}], **status)


def disrupted(reason: str, code: int = 137, message: str = "") -> PodView:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": f"said {reason}"}
    return ended(code, message, conditions=[condition])


def deleted(message: str, reason: str) -> PodView:
    return replace(ended(137, message, reason), deleting=True)


OF_MEMORY = Result(failure=Failure(reason=Reason.OUT_OF_MEMORY, message="There is too little memory.")).to_json()
SAID = Result(failure=Failure(reason=Reason.LOSS_NOT_FINITE, message="The loss was NaN at step 7."))
STOPPED = Result(failure=Failure(reason=Reason.PREEMPTED, message="The run was asked to stop.")).to_json()
NEVER, COUNTED, FREE = Retry.NEVER, Retry.COUNTED, Retry.FREE


@pytest.mark.parametrize(
    ("view", "reason", "retry", "words"),
    [
        pytest.param(ended(74, SAID.to_json()), "LossNotFinite", NEVER, "NaN at step 7", id="its own word"),
        pytest.param(ended(64), "InvalidSpec", NEVER, "Correct the spec", id="bad spec"),
        pytest.param(ended(65), "InvalidData", NEVER, "Correct the data", id="bad data"),
        pytest.param(ended(69), "StorageDenied", NEVER, "Check the Secret", id="storage denied"),
        pytest.param(ended(80), "StorageUnavailable", COUNTED, "did not answer", id="storage down"),
        pytest.param(ended(83), "CredentialsExpired", FREE, "valid keys into the Secret", id="keys expired"),
        pytest.param(ended(137, reason="OOMKilled"), "OutOfMemory", NEVER, "limit of 2Gi", id="killed for memory"),
        pytest.param(ended(1, reason="OOMKilled"), "OutOfMemory", NEVER, "limit of 2Gi", id="a child was, too"),
        pytest.param(ended(137, OF_MEMORY), "OutOfMemory", NEVER, "too little", id="killed, and it says for memory"),
        pytest.param(ended(137), "Crashed", COUNTED, "does not say by whom", id="killed by somebody"),
        pytest.param(ended(137, LOST, UNKNOWN), "NodeLost", FREE, "n1 does not know", id="gone after a reboot"),
        pytest.param(deleted(LOST, UNKNOWN), "Preempted", FREE, "before it had started", id="deleted before its start"),
        pytest.param(deleted("", "Error"), "Preempted", FREE, "was deleted.", id="deleted while it ran"),
        pytest.param(ended(128, "python: not found", "StartError"), "ConfigError", COUNTED, "not found", id="no start"),
        pytest.param(ended(73), "GpuOutOfMemory", NEVER, "batchSize to auto", id="GPU out of memory"),
        pytest.param(ended(1), "Crashed", COUNTED, "kubectl logs p", id="crash"),
        pytest.param(ended(42), "Crashed", COUNTED, "exit code 42", id="an unknown code"),
        pytest.param(ended(65, "{" * 4000), "InvalidData", NEVER, "exit code 65", id="a broken word"),
        pytest.param(disrupted("PreemptionByScheduler"), "Preempted", FREE, "higher priority", id="preempted"),
        pytest.param(disrupted("PreemptionByScheduler", 81, STOPPED), "Preempted", FREE, "not count", id="said too"),
        pytest.param(disrupted("EvictionByEvictionAPI"), "Evicted", FREE, "drained", id="evicted by a drain"),
        pytest.param(disrupted("TerminationByKubelet"), "Evicted", FREE, "The node stopped", id="evicted by its node"),
        pytest.param(disrupted("DeletionByTaintManager"), "NodeLost", FREE, "lost or tainted", id="node lost"),
        pytest.param(disrupted("DeletionByPodGC"), "NodeLost", FREE, "The node is gone", id="node removed"),
        pytest.param(ended(81, STOPPED), "Preempted", FREE, "asked to stop", id="asked to stop"),
        pytest.param(
            pod(phase="Failed", reason="Evicted", message="Pod ephemeral local storage usage exceeds 1Gi"),
            *("Evicted", COUNTED, "ephemeral-storage"),
            id="evicted for its own use of disk",
        ),
        pytest.param(
            pod(phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
            *("Crashed", COUNTED, "enough resource: cpu"),
            id="never started",
        ),
    ],
)  # fmt: skip
def test_the_end_of_a_pod_becomes_one_sentence_and_a_rule_for_trying_again(
    view: PodView, reason: str, retry: Retry, words: str
) -> None:
    failure = failures.failure_of(view)
    assert failure.reason == reason and words in failure.message
    assert "\n" not in failure.message and "None" not in failure.message
    assert failures.retry_of(view) is retry


@given(st.text(max_size=5000), st.integers(0, 255))
def test_no_termination_message_makes_the_operator_fail(text: str, code: int) -> None:
    assert failures.failure_of(ended(code, text)).message


def waiting(reason: str, message: str = "why") -> PodView:
    return pod(phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": reason, "message": message}}}])


def unscheduled(message: str) -> PodView:
    return pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": message}])


def on_a_lost_node() -> PodView:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "m"}
    return replace(pod(phase="Running", podIP="198.18.0.1", conditions=[condition]), deleting=True)


CONFIG = "CreateContainerConfigError"
SHORT = (
    "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."
)


@pytest.mark.parametrize(
    ("view", "reason", "words"),
    [
        (waiting("ErrImagePull"), Reason.IMAGE_PULL_FAILED, "imagePullSecrets"),
        (waiting("ImagePullBackOff"), Reason.IMAGE_PULL_FAILED, "Correct its name"),
        (waiting("InvalidImageName"), Reason.IMAGE_PULL_FAILED, "Correct its name"),
        (waiting(CONFIG, 'secret "s3" not found'), Reason.MISSING_SECRET, "Create that Secret"),
        (waiting(CONFIG, "couldn't find key A in Secret team/s3"), Reason.MISSING_SECRET, "Add that key"),
        (waiting(CONFIG, 'configmap "ca" not found'), Reason.MISSING_CONFIG_MAP, "Create that ConfigMap"),
        (waiting(CONFIG, "something else"), Reason.CONFIG_ERROR, "Correct that"),
        (waiting("ContainerCreating"), None, ""),
        (unscheduled(SHORT), Reason.UNSCHEDULABLE, "not enough cpu and nvidia.com/gpu is free"),
        (unscheduled("0/1: 1 node(s) had untolerated taint {gpu: 1}."), Reason.UNSCHEDULABLE, "Set tolerations"),
        (unscheduled("1 node(s) didn't match Pod's node affinity/selector."), Reason.UNSCHEDULABLE, "nodeSelector"),
        (unscheduled(""), Reason.UNSCHEDULABLE, "no reason"),
        (unscheduled('persistentvolumeclaim "data" not found'), Reason.MISSING_VOLUME_CLAIM, "Claim data in"),
        (unscheduled("unbound immediate PersistentVolumeClaims"), Reason.MISSING_VOLUME_CLAIM, "a volume for it"),
        (on_a_lost_node(), Reason.NODE_LOST, "kubectl delete node n1"),
        (replace(pod(phase="Running"), deleting=True), None, ""),
        (pod(phase="Running", podIP="198.18.0.1"), None, ""),
        (replace(unscheduled(SHORT), ip="198.18.0.1"), None, ""),
        (ended(1), None, ""),
    ],
)  # fmt: skip
def test_why_a_pod_does_not_start(view: PodView, reason: Reason | None, words: str) -> None:
    diagnosis = diagnose([view])
    assert (diagnosis.reason if diagnosis else None) == reason
    assert words in (diagnosis.message if diagnosis else "")


FORBIDDEN = 'Error creating: pods "reviews-train-" is forbidden: '


@pytest.mark.parametrize(
    ("event", "reason", "words"),
    [
        (
            f"{FORBIDDEN}exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=4, "
            "limited: requests.nvidia.com/gpu=4",
            *(Reason.QUOTA_EXCEEDED, "limited: requests.nvidia.com/gpu=4"),
        ),
        (
            f'{FORBIDDEN}error looking up service account team/nobody: serviceaccount "nobody" not found',
            *(Reason.MISSING_SERVICE_ACCOUNT, "Create the ServiceAccount nobody"),
        ),
        (f'{FORBIDDEN}violates PodSecurity "restricted:latest": x', Reason.POD_REFUSED, "pod-security label"),
        (f"{FORBIDDEN}failed quota: q: must specify limits.cpu for: main", Reason.POD_REFUSED, "Set those"),
        (f"{FORBIDDEN}maximum memory usage per Container is 1Gi", Reason.POD_REFUSED, "within that range"),
        (f"{FORBIDDEN}no PriorityClass with name high was found", Reason.POD_REFUSED, "Create that PriorityClass"),
        ('Error creating: admission webhook "w" denied the request: no', Reason.POD_REFUSED, "that webhook"),
        (
            'MountVolume.SetUp failed for volume "ca-output" : configmap "authorities" not found',
            *(Reason.MISSING_CONFIG_MAP, '"authorities" not found'),
        ),
    ],
)  # fmt: skip
def test_what_the_cluster_refuses_is_said_with_a_next_step(event: str, reason: Reason, words: str) -> None:
    diagnosis = diagnose_event(event)
    assert diagnosis.reason is reason and words in diagnosis.message
    assert "Error creating" not in diagnosis.message and diagnosis.message.endswith(".")


JOB = JobView(
    *("team", "reviews-train", "job", "uid-1", "reviews", "train", "", None, False, False, None, 2, "Failed"),
    *("PodFailurePolicy", ""),
    nodes=2,
)  # fmt: skip


def with_pods(job: JobView, pods: list[PodView]) -> JobView:
    return replace(job, pods=tuple(pods))


def member(index: int, view: PodView, second: int = 0) -> PodView:
    return replace(view, name=f"p{index}", index=index, finished_at=datetime(2026, 1, 1, second=second, tzinfo=UTC))


@pytest.mark.parametrize(
    ("members", "cause", "retry"),
    [
        pytest.param([ended(81), ended(72)], "p1", NEVER, id="out of memory, and its peer"),
        pytest.param([ended(81), ended(1)], "p1", COUNTED, id="a crash, and its peer"),
        pytest.param([ended(1), disrupted("EvictionByEvictionAPI")], "p1", FREE, id="a peer's loss looks like a crash"),
        pytest.param([ended(81), ended(81)], "p0", FREE, id="all were asked to stop"),
        pytest.param([replace(ended(137), deleting=True), ended(1)], "p1", COUNTED, id="the peer was not done in time"),
        pytest.param([ended(137, reason="OOMKilled"), ended(81)], "p0", NEVER, id="killed for memory"),
        pytest.param([ended(137), ended(81)], "p0", COUNTED, id="killed by somebody"),
        pytest.param([ended(137, reason=UNKNOWN), ended(81)], "p0", FREE, id="its node was restarted"),
    ],
)
def test_of_pods_that_trained_together_the_cause_tells_and_not_who_lost_a_peer(
    members: list[PodView], cause: str, retry: Retry
) -> None:
    pods = [member(index, view) for index, view in enumerate(members)]
    assert failures.job_failure(with_pods(JOB, pods)).pod == cause
    assert failures.job_retry(with_pods(JOB, pods)) is retry


def test_of_two_crashes_the_first_is_the_cause() -> None:
    pods = [member(0, ended(1), second=5), member(1, ended(42), second=2)]
    assert failures.job_failure(with_pods(JOB, pods)).exit_code == 42


@pytest.mark.parametrize(
    ("message", "reason", "retry"),
    [
        ("Pod team/p has condition DisruptionTarget matching FailJob rule at index 0", "Preempted", FREE),
        ("Container main failed with exit code 72 matching FailJob rule at index 1", "OutOfMemory", NEVER),
        ("Container main failed with exit code 1 matching FailJob rule at index 1", "Crashed", COUNTED),
        ("Job has reached the specified backoff limit", "Crashed", COUNTED),
    ],
)  # fmt: skip
def test_a_job_whose_pods_are_gone_is_judged_by_what_the_job_controller_wrote(
    message: str, reason: str, retry: Retry
) -> None:
    job = replace(JOB, message=message)
    assert failures.job_failure(job).reason == reason
    assert failures.job_retry(job) is retry


def test_a_deadline_says_which_field_to_raise_and_is_not_tried_again() -> None:
    job = with_pods(replace(JOB, reason="DeadlineExceeded"), [member(0, ended(81))])
    failure = failures.job_failure(job)
    assert failure.reason == Reason.DEADLINE_EXCEEDED and "activeDeadlineSeconds" in failure.message
    assert failures.job_retry(job) is NEVER


def test_attempts_of_jobs_that_were_given_up_are_counted_too() -> None:
    job = replace(JOB, nodes=1, reason="BackoffLimitExceeded", failed=2)
    assert failures.job_failure(with_pods(job, [ended(int(ExitCode.CRASHED))]), earlier=2).message.startswith(
        "4 attempts failed"
    )


MOUNT = 'MountVolume.SetUp failed for volume "credentials-dataset" : '


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (f'{MOUNT}secret "s3" not found', 'secret "s3" not found. Create that Secret'),
        (
            f"{MOUNT}references non-existent secret key: HF_TOKEN",
            "Add that key to the Secret that dataset.secretRef na",
        ),
    ],
)
def test_a_secret_that_cannot_be_mounted_is_named_or_the_field_that_names_it(message: str, words: str) -> None:
    found = diagnose_event(message)
    assert found.reason is Reason.MISSING_SECRET and words in found.message
