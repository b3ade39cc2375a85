"""A BatchPrediction's life against a real API server and the real Job controller; the tests are the node."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from luthier_api.documents import BulkDocument, Failure, Predicted, ProgressDocument, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_dev.kubectl import KubectlFailed
from support.operator.least import BATCHPREDICTION

pytestmark = pytest.mark.integration

PORT = 8080
FOLDER = "s3://predictions/reviews/predictions-0123456789abcdef/"


def batch(**changes: Any) -> dict[str, Any]:
    return {**BATCHPREDICTION, "spec": {**BATCHPREDICTION["spec"], **changes}}


def predicted(**changes: Any) -> str:
    fields = {"output": FOLDER, "rows": 100, "shards": 4, "complete": True}
    return Result(predicted=Predicted(**{**fields, **changes})).to_termination_message()


def published(namespace: Any) -> None:
    namespace.submit()
    namespace.run_through()


def workers(namespace: Any) -> list[dict[str, Any]]:
    found = namespace.all("pods", "app.kubernetes.io/component=predict")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a worker that says how far all are."""
    document = ProgressDocument(
        stage="Predicting",
        step=1,
        total_steps=4,
        rows=100,
        examples_per_second=50.0,
        eta_seconds=61.0,
        updated_at="2026-01-01T00:00:00Z",
    )

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = document.to_json().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    address = "127.0.88.1"
    with HTTPServer((address, PORT), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield address
        server.shutdown()
        thread.join()


def test_it_waits_for_the_version_predicts_shows_how_far_it_is_and_says_where_the_predictions_are(
    operator: Any, namespace: Any, answering: str
) -> None:
    namespace.apply(batch(parallelism=2))
    namespace.await_reason("bp", "reviews", "WaitingForModel")
    published(namespace)
    namespace.await_reason("bp", "reviews", "Predicting")
    namespace.until("two workers", lambda: len(workers(namespace)) == 2)
    first, second = workers(namespace)
    told = BulkDocument.from_json(first["metadata"]["annotations"]["luthier.dev/run-document"])
    assert (told.model.version, told.workers, told.input_uri) == ("v1", 2, "s3://data/reviews.csv")
    indices = {pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for pod in (first, second)}
    assert indices == {"0", "1"}

    namespace.play(first, "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, podIP=answering)
    namespace.until("progress", lambda: namespace.get("bp", "reviews")["status"].get("percent") == 25)
    line = namespace.kubectl("get", "bp").splitlines()[1].split()
    assert line[:6] == ["reviews", "Predicting", "v1", "25", "100", "1m1s"]

    namespace.end(first, 0, predicted(complete=False))
    namespace.end(second, 0, predicted())
    namespace.kubectl("wait", "bp/reviews", "--for=condition=Ready", "--timeout=60s")
    status = namespace.get("bp", "reviews")["status"]
    assert (status["phase"], status["output"], status["rows"], status["percent"]) == ("Succeeded", FOLDER, 100, 100)
    namespace.until(
        "the Job may expire", lambda: "ttlSecondsAfterFinished" in job_of(namespace, status["run"]["name"])["spec"]
    )
    reasons = [e["reason"] for e in namespace.all("events") if e["involvedObject"]["kind"] == "BatchPrediction"]
    assert sorted(reasons) == ["Predicted", "Predicting", "WaitingForModel"]


def job_of(namespace: Any, run: str) -> dict[str, Any]:
    return dict(namespace.get("job", f"{run}-predict"))


def test_a_worker_that_is_killed_is_begun_again_and_one_with_bad_data_ends_the_run(
    operator: Any, namespace: Any
) -> None:
    published(namespace)
    namespace.apply(batch())
    killed = namespace.await_pod("predict")
    namespace.end(killed, ExitCode.KILLED, reason="Error")
    namespace.until("another worker", lambda: len(workers(namespace)) == 2)
    namespace.until(
        "one failure", lambda: namespace.get("bp", "reviews")["status"].get("failedAttempts") == 1, timeout_s=60
    )
    (again,) = [pod for pod in workers(namespace) if pod["metadata"]["uid"] != killed["metadata"]["uid"]]
    said = Failure(reason=Reason.INVALID_DATA, message="reviews.csv has no column 'text'; it has 'body'.")
    namespace.end(again, ExitCode.INVALID_DATA, Result(failure=said).to_termination_message())
    status = namespace.await_reason("bp", "reviews", "InvalidData")["status"]
    stalled = next(c for c in status["conditions"] if c["type"] == "Stalled")
    assert "it has 'body'" in stalled["message"] and status["lastFailure"]["exitCode"] == 65


def test_an_edit_begins_anew_suspend_stops_and_a_deletion_takes_the_job_along(operator: Any, namespace: Any) -> None:
    published(namespace)
    namespace.apply(batch())
    first = namespace.await_pod("predict")["metadata"]["labels"]["luthier.dev/run"]
    namespace.apply(batch(shardRows=50))
    namespace.until("another run", lambda: [p for p in workers(namespace) if run_of(p) != first])
    namespace.until("the end of the first", lambda: f"{first}-predict" not in namespace.jobs)
    namespace.merge("bp", "reviews", {"spec": {"suspend": True}})
    namespace.await_reason("bp", "reviews", "Suspended")
    namespace.until("no Job", lambda: not [name for name in namespace.jobs if name.endswith("-predict")])
    namespace.merge("bp", "reviews", {"spec": {"suspend": False}})
    namespace.until("a worker", lambda: workers(namespace))
    namespace.kubectl("delete", "bp", "reviews")
    namespace.until("no Job", lambda: not [name for name in namespace.jobs if name.endswith("-predict")])


def run_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["luthier.dev/run"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"input": {"uri": "hf://datasets/owner/name"}}, "must be an s3:// URI"),
        ({"output": {"uri": "file:///tmp/x"}}, "must be an s3:// URI"),
        ({"input": {"uri": "s3://bucket/in/"}, "output": {"uri": "s3://bucket/in/out/"}}, "lies below input.uri"),
        ({"runtime": {"engine": "onnxruntime", "gpusPerReplica": 1}}, "onnxruntime runs on the CPU"),
        ({"model": {"uri": "s3://bucket/m/versions/v1"}}, "give uri and digest together"),
        ({"output": {"uri": "s3://bucket/out/", "format": "CSV"}}, "Unsupported value"),
        ({"parallelism": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_api_server(
    namespace: Any, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(KubectlFailed, match=sentence):
        namespace.apply(batch(**changes))
