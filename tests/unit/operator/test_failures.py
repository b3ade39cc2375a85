"""What is said of a pod, from its status alone; a pod may be broken or hostile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.documents import Failure, Result
from luthier_api.reasons import Reason
from luthier_operator.observed import PodView, pod_view
from luthier_operator.plan import failures

pytestmark = pytest.mark.unit


def pod(**status: Any) -> PodView:
    container: dict[str, Any] = {"resources": {"limits": {"memory": "2Gi"}}}
    return pod_view({"metadata": {"name": "p"}, "spec": {"containers": [container]}, "status": status})


def ended(code: int, message: str = "", reason: str = "Error", **status: Any) -> PodView:
    state = {"terminated": {"exitCode": code, "message": message, "reason": reason}}
    return pod(phase="Failed", containerStatuses=[{"state": state}], **status)


SAID = Result(failure=Failure(reason=Reason.LOSS_NOT_FINITE, message="The loss was NaN at step 7."))
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}


@pytest.mark.parametrize(
    ("view", "reason", "words"),
    [
        pytest.param(ended(74, SAID.to_json()), "LossNotFinite", "NaN at step 7", id="its own word"),
        pytest.param(ended(137, reason="OOMKilled"), "OutOfMemory", "limit of 2Gi", id="killed for memory"),
        pytest.param(ended(1, reason="OOMKilled"), "OutOfMemory", "limit of 2Gi", id="a child was killed for memory"),
        pytest.param(ended(137, conditions=[DISRUPTED]), "Preempted", "preempted", id="disrupted"),
        pytest.param(ended(73), "GpuOutOfMemory", "batchSize to auto", id="a known code"),
        pytest.param(ended(42), "Crashed", "exit code 42", id="an unknown code"),
        pytest.param(ended(65, "{" * 4000), "InvalidData", "exit code 65", id="a broken word"),
        pytest.param(
            pod(phase="Failed", reason="Evicted", message="The node was low on memory."),
            "Crashed",
            "low on memory",
            id="never started",
        ),
    ],
)
def test_a_pod_s_end_is_told_in_one_sentence(view: PodView, reason: str, words: str) -> None:
    failure = failures.failure_of(view)
    assert failure.reason == reason and words in failure.message
    assert "\n" not in failure.message


@given(st.text(max_size=5000), st.integers(0, 255))
def test_no_last_word_makes_the_operator_fail(text: str, code: int) -> None:
    assert failures.failure_of(ended(code, text)).message


def waiting(reason: str, message: str = "why") -> PodView:
    return pod(phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": reason, "message": message}}}])


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (waiting("ErrImagePull"), Reason.IMAGE_PULL_FAILED),
        (waiting("ImagePullBackOff"), Reason.IMAGE_PULL_FAILED),
        (waiting("InvalidImageName"), Reason.IMAGE_PULL_FAILED),
        (waiting("CreateContainerConfigError", 'secret "s3" not found'), Reason.CONFIG_ERROR),
        (waiting("ContainerCreating"), None),
        (pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False"}]), Reason.UNSCHEDULABLE),
        (pod(phase="Running", podIP="198.18.0.1"), None),
        (ended(1), None),
    ],
)
def test_why_a_pod_does_not_start(view: PodView, reason: Reason | None) -> None:
    trouble = failures.trouble_of([view])
    assert (trouble.reason if trouble else None) == reason
