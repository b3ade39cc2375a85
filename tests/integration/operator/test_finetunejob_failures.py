"""What keeps pods from being made, and what ends them, on a real API server with the real Job controller."""

from __future__ import annotations

import time
from typing import Any

import pytest

from luthier_api.documents import Failure, Result
from luthier_api.reasons import Reason

pytestmark = pytest.mark.integration

QUOTA = {"kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
LIMITS = {
    "kind": "LimitRange",
    "metadata": {"name": "small"},
    "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]},
}
ACCOUNT = {"kind": "ServiceAccount", "metadata": {"name": "trainer"}}


@pytest.mark.parametrize(
    ("spec", "there", "reason", "words", "repair"),
    [
        pytest.param({}, QUOTA, "QuotaExceeded", "pods=1", ("delete", "quota", "none"), id="quota"),
        pytest.param({}, LIMITS, "PodRefused", "64Mi", ("delete", "limitrange", "small"), id="limit range"),
        pytest.param(
            *({"serviceAccountName": "trainer"}, None, "MissingServiceAccount", "ServiceAccount trainer"),
            ("create", "serviceaccount", "trainer"),
            id="service account",
        ),
    ],
)
def test_why_no_pod_is_made_is_said_within_ten_seconds_and_heals(
    operator: Any, namespace: Any, spec: Any, there: Any, reason: str, words: str, repair: tuple[str, ...]
) -> None:
    if there:
        namespace.apply({"apiVersion": "v1", **there})
        namespace.until("the object", lambda: namespace.all(there["kind"].lower()))
    if there is QUOTA:
        namespace.until("the quota to hold", lambda: namespace.get("quota", "none").get("status"))
    begun = time.monotonic()
    namespace.submit(**spec)
    status = namespace.await_reason("ftj", "reviews", reason, timeout_s=10)["status"]
    assert time.monotonic() - begun < 10
    telling = next(c for c in status["conditions"] if c["type"] == "Reconciling")
    assert words in telling["message"] and "Error creating" not in telling["message"]
    namespace.kubectl(*repair)
    # The Job controller backs off; a change of the Job makes it look again at once.
    namespace.kubectl("annotate", "job", namespace.jobs[0], "test/look=again")
    namespace.await_pod("prepare")
    namespace.await_reason("ftj", "reviews", "Preparing")


def train_pods(namespace: Any) -> list[dict[str, Any]]:
    selector = "app.kubernetes.io/component=train"
    pods = namespace.all("pods", selector)
    return [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]


def train_uid(namespace: Any) -> str:
    return next(
        (job["metadata"]["uid"] for job in namespace.all("jobs") if job["metadata"]["name"].endswith("-train")), ""
    )


def test_pods_of_two_nodes_start_over_together_and_publish_once(operator: Any, namespace: Any) -> None:
    namespace.submit(numNodes=2, gpusPerNode=0)
    namespace.prepare_ends()
    namespace.until("two pods", lambda: len(train_pods(namespace)) == 2)
    first, second = train_pods(namespace)
    (service,) = [s for s in namespace.all("services") if s["metadata"]["name"].startswith("rdzv-")]
    assert service["spec"]["clusterIP"] == "None"
    assert {pod["spec"]["subdomain"] for pod in (first, second)} == {service["metadata"]["name"]}
    assert {pod["spec"]["hostname"] for pod in (first, second)} == {f"{namespace.jobs[-1]}-{n}" for n in (0, 1)}
    uid = train_uid(namespace)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    state = {"terminated": {"exitCode": 137, "reason": "Error"}}
    namespace.play(first, "Failed", state, conditions=[condition])
    namespace.until("another Job", lambda: train_uid(namespace) not in ("", uid))
    namespace.until("two pods again", lambda: len(train_pods(namespace)) == 2)
    status = namespace.get("ftj", "reviews")["status"]
    assert status["attempts"] == {"failed": 0, "preempted": 1}
    assert (status["lastFailure"]["reason"], status["currentRun"]["givenUp"]) == ("Evicted", uid)
    namespace.train_ends()
    namespace.train_ends()
    namespace.await_reason("ftj", "reviews", "Published")
    assert len(namespace.get("ftj", "reviews")["status"]["versions"]) == 1


def test_a_training_that_is_stuck_is_started_again_and_counted(operator: Any, namespace: Any) -> None:
    namespace.submit(progressDeadlineSeconds=2, backoffLimit=1)
    namespace.prepare_ends()
    for attempt in (1, 2):
        pod = namespace.await_pod("train")
        uid = train_uid(namespace)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        address = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
        namespace.play(pod, "Running", {"running": {"startedAt": now}}, **address)
        namespace.until(f"stop {attempt}", lambda uid=uid: train_uid(namespace) != uid)
    status = namespace.await_reason("ftj", "reviews", "Stuck")["status"]
    assert (status["phase"], status["attempts"]["failed"]) == ("Failed", 2)
    assert status["lastFailure"]["message"].startswith("2 attempts failed")
    namespace.until("the GPU to be free", lambda: not train_uid(namespace))


def test_a_crash_at_the_same_place_ends_the_job_at_the_second_time_and_keeps_its_pods(
    operator: Any, namespace: Any
) -> None:
    namespace.submit(backoffLimit=5)
    failure = Failure(reason=Reason.CRASHED, message="KeyError: 'x'.", place="KeyError at luthier_trainer.prepare:88")
    for _ in range(2):
        # The Job controller makes the second pod ten seconds later.
        namespace.end(namespace.await_pod("prepare"), 1, Result(failure=failure).to_termination_message())
    status = namespace.await_reason("ftj", "reviews", "Crashed")["status"]
    assert (status["phase"], status["attempts"]["failed"]) == ("Failed", 2)
    assert status["lastFailure"]["message"].startswith("It crashed twice at the same place, KeyError at ")
    (job,) = namespace.all("jobs")
    assert [c["reason"] for c in job["status"]["conditions"] if c["type"] == "Failed"] == ["BackoffLimitExceeded"]
    assert len(namespace.all("pods")) == 2


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_deleting_a_pod_that_still_waits_is_no_lack_of_memory_and_another_one_is_made(
    operator: Any, namespace: Any, stage: str
) -> None:
    namespace.submit()
    if stage == "train":
        namespace.prepare_ends()
    pod = namespace.await_pod(stage)
    uid = pod["metadata"]["uid"]
    namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    # What a kubelet says of a container that waited for a Secret that is not there.
    text = "The container could not be located when the pod was terminated"
    terminated = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": text}
    namespace.play(pod, "Failed", {"terminated": {**terminated, "startedAt": None, "finishedAt": None}})
    namespace.until(
        "another pod",
        lambda: [
            p for p in namespace.all("pods", f"app.kubernetes.io/component={stage}") if p["metadata"]["uid"] != uid
        ],
    )
    status = namespace.get("ftj", "reviews")["status"]
    assert status["attempts"] == {"failed": 0, "preempted": 1}
    assert status["phase"] in ("Preparing", "Training") and status["lastFailure"]["reason"] == "Preempted"
    if stage == "prepare":
        namespace.prepare_ends()
    namespace.train_ends()
    namespace.until("the version", lambda: namespace.version == "v1")
