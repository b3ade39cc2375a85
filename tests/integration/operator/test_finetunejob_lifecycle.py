"""A FineTuneJob's life against a real API server and the real Job controller; the tests are the node."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from luthier_api.documents import Failure, ProgressDocument, Result, RunDocument
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from support.operator.api import ApiRefused

pytestmark = pytest.mark.integration

PROGRESS_PORT = 8080


def failure(reason: Reason, message: str) -> str:
    return Result(failure=Failure(reason=reason, message=message)).to_termination_message()


def test_apply_becomes_prepare_then_train_then_a_version(operator: Any, namespace: Any) -> None:
    namespace.submit()
    pod = namespace.await_pod("prepare")
    text = pod["metadata"]["annotations"]["luthier.dev/run-document"]
    document = RunDocument.from_json(text)
    assert document.resolved is None and document.output_access.credentials == "output"
    namespace.prepare_ends()
    train = namespace.await_pod("train")
    limits = train["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert RunDocument.from_json(train["metadata"]["annotations"]["luthier.dev/run-document"]).resolved
    assert namespace.get("ftj", "reviews")["status"]["phase"] == "Training"
    namespace.train_ends()
    namespace.kubectl("wait", "ftj/reviews", "--for=condition=Ready", "--timeout=60s")
    status = namespace.get("ftj", "reviews")["status"]
    assert (status["phase"], status["artifact"]["version"], status["observedGeneration"]) == ("Succeeded", "v1", 1)
    line = namespace.kubectl("get", "ftj").splitlines()[1]
    assert all(word in line for word in ("Succeeded", "0.91", "v1"))
    namespace.until(
        "Jobs may expire", lambda: all("ttlSecondsAfterFinished" in j["spec"] for j in namespace.all("jobs"))
    )
    reasons = [e["reason"] for e in namespace.all("events") if e["involvedObject"]["kind"] == "FineTuneJob"]
    assert sorted(reasons) == ["Preparing", "Published", "Training"]


def test_a_reverted_edit_is_answered_without_a_job(operator: Any, namespace: Any) -> None:
    namespace.submit()
    namespace.run_through()
    namespace.submit(hyperparameters={"epochs": 1})
    namespace.run_through("b", "v2")
    before = namespace.jobs
    namespace.submit()
    namespace.until("the first version", lambda: namespace.version == "v1")
    namespace.await_reason("ftj", "reviews", "Reused")
    assert namespace.jobs == before


@pytest.mark.parametrize(
    ("code", "message", "kubelet_reason", "reason", "sentence"),
    [
        pytest.param(
            ExitCode.INPUT_NOT_FOUND,
            failure(Reason.INPUT_NOT_FOUND, "s3://data/reviews.csv does not exist."),
            "Error",
            "InputNotFound",
            "s3://data/reviews.csv does not exist.",
            id="the pod says why",
        ),
        pytest.param(
            ExitCode.KILLED, "", "OOMKilled", "OutOfMemory", "Raise resources.limits.memory", id="killed for memory"
        ),
        pytest.param(
            ExitCode.INVALID_DATA, "not json", "Error", "InvalidData", "exit code 65", id="a broken last word"
        ),
    ],
)
def test_a_failure_that_would_only_come_again_ends_the_run_with_its_sentence(
    operator: Any, namespace: Any, code: int, message: str, kubelet_reason: str, reason: str, sentence: str
) -> None:
    namespace.submit()
    namespace.end(namespace.await_pod("prepare"), code, message, kubelet_reason)
    status = namespace.await_reason("ftj", "reviews", reason)["status"]
    stalled = next(c for c in status["conditions"] if c["type"] == "Stalled")
    assert sentence in stalled["message"] and status["phase"] == "Failed"
    assert len(namespace.jobs) == 1, "no GPU was asked for"
    warnings = [e["reason"] for e in namespace.all("events") if e["type"] == "Warning"]
    assert reason in warnings


@pytest.mark.parametrize(
    ("status", "reason", "sentence"),
    [
        pytest.param(
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}},
            "MissingSecret",
            'secret "s3" not found',
            id="missing Secret",
        ),
        pytest.param(
            {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "trainer:1"'}},
            "ImagePullFailed",
            "Back-off pulling image",
            id="image that does not exist",
        ),
    ],
)
def test_a_pod_that_cannot_start_says_why_and_goes_on_when_that_is_repaired(
    operator: Any, namespace: Any, status: dict[str, Any], reason: str, sentence: str
) -> None:
    namespace.submit()
    pod = namespace.await_pod("prepare")
    namespace.play(pod, "Pending", status)
    conditions = namespace.await_reason("ftj", "reviews", reason)["status"]["conditions"]
    assert sentence in next(c["message"] for c in conditions if c["type"] == "Reconciling")
    assert not [c for c in conditions if c["type"] == "Stalled"]
    namespace.play(pod, "Running", {"running": {}})
    namespace.await_reason("ftj", "reviews", "Preparing")


def test_an_unschedulable_pod_says_what_is_short(operator: Any, namespace: Any) -> None:
    namespace.submit()
    pod = namespace.await_pod("prepare")
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
    namespace.merge("pod", pod["metadata"]["name"], {"status": {"conditions": [condition]}}, status=True)
    status = namespace.await_reason("ftj", "reviews", "Unschedulable")["status"]
    assert "Insufficient cpu" in json.dumps(status["conditions"])


def test_what_the_api_server_refuses_is_said_with_its_own_words_and_can_be_repaired(
    operator: Any, namespace: Any
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    namespace.apply({**quota, "spec": {"hard": {"count/jobs.batch": "0"}}})
    namespace.until("the quota to hold", lambda: namespace.get("quota", "none").get("status", {}).get("hard"))
    namespace.submit()
    status = namespace.await_reason("ftj", "reviews", "QuotaExceeded")["status"]
    (waiting,) = [c for c in status["conditions"] if c["type"] == "Reconciling"]
    assert "limited: count/jobs.batch=0" in waiting["message"]
    assert "QuotaExceeded" in [e["reason"] for e in namespace.all("events")]
    namespace.kubectl("delete", "quota", "none")
    namespace.submit(ttlSecondsAfterFinished=600)
    namespace.run_through()


def test_an_edit_replaces_the_running_jobs(operator: Any, namespace: Any) -> None:
    namespace.submit()
    namespace.await_pod("prepare")
    (old,) = namespace.jobs
    namespace.submit(hyperparameters={"epochs": 1})
    namespace.until("the old Job to go", lambda: namespace.jobs and old not in namespace.jobs)
    assert len(namespace.jobs) == 1


def test_suspend_and_resume(operator: Any, namespace: Any) -> None:
    namespace.submit()
    namespace.await_pod("prepare")
    namespace.merge("ftj", "reviews", {"spec": {"suspend": True}})
    namespace.await_reason("ftj", "reviews", "Suspended")
    namespace.until("the pod to go", lambda: not namespace.all("pods"))
    namespace.merge("ftj", "reviews", {"spec": {"suspend": False}})
    namespace.run_through()


def document_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["annotations"]["luthier.dev/run-document"])


def test_a_suspended_training_goes_on_in_the_same_job_with_the_same_run_document(operator: Any, namespace: Any) -> None:
    namespace.submit()
    namespace.prepare_ends()
    before, jobs = namespace.await_pod("train"), namespace.jobs
    namespace.merge("ftj", "reviews", {"spec": {"suspend": True}})
    namespace.await_reason("ftj", "reviews", "Suspended")
    name = before["metadata"]["name"]
    namespace.until("the pod to go", lambda: name not in [pod["metadata"]["name"] for pod in namespace.all("pods")])
    namespace.merge("ftj", "reviews", {"spec": {"suspend": False}})
    after = namespace.await_pod("train")
    assert after["metadata"]["name"] != name and document_of(after) == document_of(before)
    namespace.train_ends()
    namespace.until("the version", lambda: namespace.version == "v1")
    assert namespace.jobs == jobs


def test_a_training_that_was_asked_to_stop_is_started_again_and_does_not_count(operator: Any, namespace: Any) -> None:
    namespace.submit(backoffLimit=0)
    namespace.prepare_ends()
    for times in (1, 2):
        pod = namespace.await_pod("train")
        namespace.end(
            pod, ExitCode.PREEMPTED, failure(Reason.PREEMPTED, "The checkpoint of step 7 is stored."), "Error"
        )
        attempts = {"failed": 0, "preempted": times}
        namespace.until(
            "the count", lambda wanted=attempts: namespace.get("ftj", "reviews")["status"].get("attempts") == wanted
        )
        assert document_of(namespace.await_pod("train")) == document_of(pod)
    namespace.train_ends()
    namespace.until("the version", lambda: namespace.version == "v1")


def test_deleting_the_resource_removes_its_jobs(operator: Any, namespace: Any) -> None:
    namespace.submit()
    namespace.await_pod("prepare")
    namespace.kubectl("delete", "ftj", "reviews", "--wait=false")
    namespace.until("the Jobs to go", lambda: not namespace.jobs)


@pytest.fixture
def training_pod() -> Iterator[str]:
    """A training pod's endpoint, on an address of the machine that no other test uses."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = ProgressDocument(
                stage="Training",
                step=30,
                total_steps=120,
                epoch=0.5,
                eta_seconds=42,
                tokens_per_second=812.5,
                gpu_memory_bytes=5 * 2**30,
                checkpoint_step=25,
                resumed_from_step=20,
                updated_at="2026-01-01T00:00:00Z",
            )
            self.send_response(200 if self.path == "/progress" else 404)
            self.end_headers()
            self.wfile.write(document.to_json().encode())

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    address = "127.0.87.1"
    with HTTPServer((address, PROGRESS_PORT), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def test_progress_of_the_training_pod_is_shown(operator: Any, namespace: Any, training_pod: str) -> None:
    namespace.submit()
    namespace.prepare_ends()
    pod = namespace.await_pod("train")
    namespace.play(pod, "Running", {"running": {}}, podIP=training_pod, podIPs=[{"ip": training_pod}])
    namespace.until("progress", lambda: namespace.get("ftj", "reviews")["status"].get("progress"))
    status = namespace.get("ftj", "reviews")["status"]
    shown, checkpoint = status["progress"], status["checkpoint"]
    assert (shown["percent"], shown["tokensPerSecond"], shown["gpuMemoryBytes"]) == (25, "812", 5 * 2**30)
    assert (checkpoint["step"], checkpoint["resumedFrom"]) == (25, 20)
    assert checkpoint["uri"].endswith(f"/checkpoints/{status['currentRun']['runKey']}/25")
    assert " 25 " in namespace.kubectl("get", "ftj")


def test_a_stored_spec_that_this_operator_cannot_read_gets_a_condition(operator: Any, namespace: Any) -> None:
    """The schema lets a list of labels through that the model, which knows more, refuses."""
    namespace.submit()
    namespace.await_pod("prepare")
    crd = "crd/finetunejobs.luthier.dev"
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/precision/enum"
    original = namespace.get("crd", "finetunejobs.luthier.dev")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    enum = original["properties"]["spec"]["properties"]["precision"]["enum"]
    add = [{"op": "replace", "path": path, "value": [*enum, "fp8"]}]
    namespace.kubectl("patch", crd, "--type=json", "-p", json.dumps(add))
    try:
        namespace.until("the wider schema", lambda: accepts(namespace))
        status = namespace.await_reason("ftj", "reviews", "InvalidSpec")["status"]
        assert "spec.precision" in json.dumps(status["conditions"])
    finally:
        namespace.kubectl(
            "patch", crd, "--type=json", "-p", json.dumps([{"op": "replace", "path": path, "value": enum}])
        )
        namespace.kubectl("delete", "ftj", "reviews")


def accepts(namespace: Any) -> bool:
    try:
        namespace.merge("ftj", "reviews", {"spec": {"precision": "fp8"}})
    except ApiRefused:
        return False
    return True
