"""Pods that are broken or hostile: their resource says one sane sentence, and nobody else notices.

The tests are the node, and the training pods: real servers on addresses of this machine, which misbehave on purpose.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import psutil
import pytest

from luthier_api.documents import TRAINER_PORT, Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason

pytestmark = pytest.mark.integration

Raw = dict[str, Any]
ESCAPE = "\x1b[2J\x1b[31m\u202e\x07"
LEAST = {"stage": "Training", "step": 30, "totalSteps": 120, "updatedAt": "2026-01-01T00:00:00Z"}
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answer(**changes: Any) -> bytes:
    body = json.dumps({**LEAST, **changes}).encode()
    return OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


class Endpoint:
    """What a training pod does with whoever connects; `behave` gets the connection and whether to go on."""

    def __init__(self, address: str, behave: Callable[[socket.socket, threading.Event], None]) -> None:
        self.address = address
        self.asked = 0
        self._behave, self._over = behave, threading.Event()
        self._listener = socket.create_server((address, TRAINER_PORT))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            connection, _ = self._listener.accept()
            if self._over.is_set():
                connection.close()
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                if connection.recv(4096).startswith(b"GET /progress HTTP/1.1\r\n"):
                    self.asked += 1
                    self._behave(connection, self._over)
            except OSError:
                return  # the operator has gone, as it should

    def close(self) -> None:
        self._over.set()
        socket.create_connection((self.address, TRAINER_PORT)).close()
        self._thread.join()
        self._listener.close()


def says(content: bytes) -> Callable[[socket.socket, threading.Event], None]:
    return lambda connection, _: connection.sendall(content)


def goes_on(first: bytes, again: bytes, pause_s: float = 0.0) -> Callable[[socket.socket, threading.Event], None]:
    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        while not over.wait(pause_s):
            connection.sendall(again)

    return behave


def hangs(_: socket.socket, over: threading.Event) -> None:
    over.wait()


def resets(connection: socket.socket, _: threading.Event) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


ELSEWHERE = "127.0.88.200"
HOSTILE: dict[str, Callable[[socket.socket, threading.Event], None]] = {
    "hangs": hangs,
    "streams": goes_on(OK + b"\r\n", b"x" * 65536),
    "drips": goes_on(OK + b"\r\n", b" ", 1.0),
    "sends-100-mb": says(OK + b"Content-Length: 104857600\r\n\r\n" + b"x" * 104857600),
    "continues": goes_on(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "resets": resets,
    "redirects": says(f"HTTP/1.1 302 Found\r\nLocation: http://{ELSEWHERE}:{TRAINER_PORT}/progress\r\n\r\n".encode()),
    "percent-over-100": says(answer(step=130)),
    "negative": says(answer(step=-3)),
    "not-finite": says(answer(etaSeconds=float("nan"), epoch=float("inf"))),
    "too-large": says(answer(gpuMemoryBytes=10**30)),
    "a-million-metrics": says(answer(metrics={str(number): 0.5 for number in range(1_000_000)})),
    "not-json": says(OK + b"\r\n" + ESCAPE.encode() * 100),
}
"""Pods that tell nothing that can be used."""
LIES = {f"loss{ESCAPE}": 1.0, "loss": 0.5, "huge": 1e308, "nan": float("nan")}


@pytest.fixture(scope="module")
def endpoints() -> Iterator[dict[str, Endpoint]]:
    behaviours = {
        **HOSTILE,
        "lies": says(answer(metrics=LIES, run="another-run", runKey="f" * 64)),
        "honest": says(answer(step=60)),
        "elsewhere": says(answer(step=99)),
        "forged": says(answer(step=99)),
    }
    found = {}
    for number, (name, behave) in enumerate(behaviours.items(), 1):
        found[name] = Endpoint(ELSEWHERE if name == "elsewhere" else f"127.0.88.{number}", behave)
    yield found
    for endpoint in found.values():
        endpoint.close()


def each(act: Callable[[Any], None], these: Iterable[Any]) -> None:
    """Act on all, a few at the same time: kubectl is slow to start."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, these))


class Crowd:
    """Many FineTuneJobs of one namespace, brought to a stage together."""

    def __init__(self, namespace: Any, make: Callable[..., Raw], prepared: Callable[..., str]) -> None:
        self.namespace, self._make, self._prepared = namespace, make, prepared

    def submit(self, *names: str, **spec: Any) -> None:
        items = [{**self._make(**spec), "metadata": {"name": name}} for name in names]
        self.namespace.apply({"apiVersion": "v1", "kind": "List", "items": items})

    def pods(self, stage: str, names: Iterator[str] | list[str]) -> dict[str, Raw]:
        """Return the pod of each, as soon as all have one."""
        wanted, found = set(names), {}

        def complete() -> bool:
            for pod in self.namespace.all("pods"):
                labels = pod["metadata"].get("labels", {})
                if labels.get("app.kubernetes.io/component") == stage:
                    found[labels["luthier.dev/finetunejob"]] = pod
            return wanted <= set(found)

        self.namespace.until(f"pods of {stage}", complete)
        return {name: found[name] for name in wanted}

    def train(self, *names: str) -> dict[str, Raw]:
        """Bring these to training; return their pods."""
        self.submit(*names)
        each(lambda pod: self.namespace.end(pod, 0, self._prepared()), self.pods("prepare", list(names)).values())
        return self.pods("train", list(names))

    def run(self, pod: Raw, address: str) -> None:
        self.namespace.play(pod, "Running", {"running": {}}, podIP=address, podIPs=[{"ip": address}])

    def status(self, name: str) -> Raw:
        return dict(self.namespace.get("ftj", name).get("status", {}))

    def statuses(self) -> dict[str, Raw]:
        return {found["metadata"]["name"]: found.get("status", {}) for found in self.namespace.all("ftj")}


@pytest.fixture
def crowd(namespace: Any, make_finetunejob: Callable[..., Raw], prepared_message: Callable[..., str]) -> Crowd:
    return Crowd(namespace, make_finetunejob, prepared_message)


def ready(status: Raw) -> Raw:
    return next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {"reason": "", "message": ""})


def assert_fit_for_a_terminal(namespace: Any) -> None:
    """Everything that the operator wrote can be shown as it is: the JSON itself, before kubectl escapes anything."""
    for kind in ("ftj", "events"):
        for found in namespace.all(kind):
            for text in texts(found.get("status") if kind == "ftj" else found["message"]):
                assert text.isprintable() and len(text) <= 4096, repr(text)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


@pytest.fixture(autouse=True)
def no_bug(operator: Any) -> Iterator[None]:
    """Whatever happens, no reconcile fails by a mistake of the operator."""
    yield
    text, trouble = operator.get("/metrics")
    assert trouble is None
    errors = [line for line in text.splitlines() if line.startswith("luthier_reconcile_errors_total{")]
    assert not [line for line in errors if "bug" in line]


def rss_mib(operator: Any) -> float:
    return float(psutil.Process(operator.pid).memory_info().rss) / 2**20


def test_no_training_pod_delays_another_resource_or_makes_the_operator_grow(
    operator: Any, namespace: Any, crowd: Crowd, endpoints: dict[str, Endpoint]
) -> None:
    names = [*HOSTILE, "lies", "honest"]
    pods = crowd.train(*names)
    crowd.run(pods["honest"], endpoints["honest"].address)
    calm = [seconds_to_hear(namespace, crowd, "honest", pods["honest"], f"c{number}") for number in range(3)]
    before = rss_mib(operator)
    each(lambda name: crowd.run(pods[name], endpoints[name].address), names)
    # A pod that takes its two seconds is asked again after a minute; the others three times here.
    slow = {"hangs", "drips"}
    namespace.until(
        "all to be asked", lambda: all(endpoints[name].asked >= (1 if name in slow else 3) for name in names), 90
    )
    waits = [seconds_to_hear(namespace, crowd, "honest", pods["honest"], f"e{number}") for number in range(3)]
    assert median(waits) < median(calm) + 1, (calm, waits)
    statuses = crowd.statuses()
    for name in HOSTILE:
        status = statuses[name]
        assert "progress" not in status or status["progress"].get("step", 0) == 0, name
        assert (ready(status)["reason"], status["phase"]) == ("Training", "Training"), name
        assert ready(status)["message"] == "The training pod is starting.", name
    assert statuses["honest"]["progress"]["percent"] == 50
    lied = statuses["lies"]
    assert lied["progress"]["metrics"] == {"loss": "0.5", "huge": "1e+308"}
    assert lied["currentRun"]["name"].startswith("lies-") and lied["currentRun"]["runKey"] != "f" * 64
    assert endpoints["elsewhere"].asked == 0, "a redirect is not followed"
    assert rss_mib(operator) - before < 40
    assert_fit_for_a_terminal(namespace)


def seconds_to_hear(namespace: Any, crowd: Crowd, name: str, pod: Raw, word: str) -> float:
    """Return how long it takes until a change of this pod is in its resource's status."""
    message = f"the image {word} is not there"
    begun = time.monotonic()
    namespace.play(pod, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": message}})
    written = time.monotonic()
    namespace.until(word, lambda: message in ready(crowd.status(name))["message"], 30)
    heard = time.monotonic() - written
    namespace.play(pod, "Running", {"running": {}})
    namespace.until("it runs", lambda: ready(crowd.status(name))["reason"] == "Training", 30)
    assert time.monotonic() - begun < 30
    return heard


def result(**changes: Any) -> str:
    sha = "a" * 64
    published = {"runKey": sha, "version": "v1", "uri": "s3://m/s/versions/v1", "digest": f"sha256:{sha}"}
    return json.dumps({"published": {**published, "sizeBytes": 1, **changes}})


def failure(reason: str, message: str) -> str:
    return json.dumps({"failure": {"reason": reason, "message": message}})


NO_RESULT = ("Crashed", "left no result that Luthier understands")
LAST_WORDS: dict[str, tuple[int, str, str, str]] = {
    "nothing": (0, "", *NO_RESULT),
    "not-json": (0, "Killed", *NO_RESULT),
    "cut": (0, result(message="x" * 500)[:300], *NO_RESULT),
    "huge": (0, "x" * 100_000, *NO_RESULT),
    "huge-result": (0, result(message="x" * 5000), *NO_RESULT),
    "deep": (0, "[" * 4000, *NO_RESULT),
    "surrogates": (0, result(version="v\ud800"), *NO_RESULT),
    "control": (0, result(version=f"v{ESCAPE}", uri=f"s3://m/s/versions/v{ESCAPE}"), *NO_RESULT),
    "elsewhere": (0, result(version="../../other"), *NO_RESULT),
    "too-large": (0, result(sizeBytes=10**30), *NO_RESULT),
    "unknown-fields": (0, result(command="rm"), *NO_RESULT),
    "fails-well": (0, failure("InvalidData", "The labels are empty."), "InvalidData", "The labels are empty."),
    "no-failure": (65, failure("Serving", f"All {ESCAPE}\n\nis well"), "InvalidData", "All [2J [31m is well."),
    "endless": (65, failure("InvalidData", "x" * 1500), "InvalidData", "xxx"),
    "unknown-code": (77, "", "Crashed", "exit code 77"),
}


def test_whatever_a_pod_leaves_as_its_last_word_ends_in_one_sane_sentence(
    operator: Any, namespace: Any, crowd: Crowd
) -> None:
    crowd.submit(*LAST_WORDS, backoffLimit=0)
    pods = crowd.pods("prepare", list(LAST_WORDS))

    def end(name: str) -> None:
        code, message, *_ = LAST_WORDS[name]
        namespace.end(pods[name], code, message, "Completed" if code == 0 else f"Error{ESCAPE}")

    each(end, LAST_WORDS)
    namespace.until("all to fail", lambda: {s.get("phase") for s in crowd.statuses().values()} == {"Failed"}, 90)
    for name, status in crowd.statuses().items():
        *_, reason, sentence = LAST_WORDS[name]
        assert ready(status)["reason"] == reason, name
        assert sentence in ready(status)["message"], name
        assert len(ready(status)["message"]) <= 1600 and "\n" not in ready(status)["message"], name
        assert not status.get("versions"), name
        assert "Stalled" in [c["type"] for c in status["conditions"]], name
    assert "train" not in {job["metadata"]["labels"]["app.kubernetes.io/component"] for job in namespace.all("jobs")}
    assert_fit_for_a_terminal(namespace)
    shown = namespace.kubectl("describe", "ftj") + namespace.kubectl("get", "ftj") + namespace.kubectl("get", "events")
    assert all(line.replace("\t", " ").isprintable() for line in shown.splitlines())


def test_the_result_of_another_run_or_stage_is_not_taken(
    operator: Any, namespace: Any, crowd: Crowd, prepared_message: Callable[..., str]
) -> None:
    words = {"prepares-again": prepared_message(), "other-run": result(runKey="f" * 64)}
    for name, pod in crowd.train(*words).items():
        namespace.end(pod, 0, words[name])
    namespace.until("both to fail", lambda: {s["phase"] for s in crowd.statuses().values()} == {"Failed"})
    for status in crowd.statuses().values():
        assert ready(status)["reason"] == "IntegrityError"
        assert "reported the result of another run; it was not taken" in ready(status)["message"]
        assert "artifact" not in status and not status.get("versions")


def test_containers_that_others_put_into_the_pod_are_not_taken_for_the_trainers(
    operator: Any, namespace: Any, crowd: Crowd
) -> None:
    names = ["sidecar-speaks", "sidecar-image", "init-image"]
    crowd.submit(*names)
    pods = crowd.pods("prepare", names)

    def status(name: str, **state: Any) -> Raw:
        return {"name": name, "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}

    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
    said = Result(failure=Failure(reason=Reason.INVALID_DATA, message="The data is bad.")).to_termination_message()
    mine = status("main", terminated={"exitCode": ExitCode.INVALID_DATA, "message": said, "reason": "Error", **times})
    other = status("a-proxy", terminated={"exitCode": 0, "message": result(), "reason": "Completed", **times})
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "proxy:1"'}
    written: dict[str, Raw] = {
        "sidecar-speaks": {"phase": "Failed", "containerStatuses": [other, mine]},
        "sidecar-image": {"containerStatuses": [status("a-proxy", waiting=waiting), status("main", running={})]},
        "init-image": {
            "initContainerStatuses": [status("a-vault", waiting=waiting)],
            "containerStatuses": [status("main", waiting={"reason": "PodInitializing"})],
        },
    }
    for name, content in written.items():
        namespace.merge("pod", pods[name]["metadata"]["name"], {"status": content}, status=True)
    namespace.until("the failure", lambda: ready(crowd.status("sidecar-speaks"))["reason"] == "InvalidData")
    assert ready(crowd.status("sidecar-speaks"))["message"].startswith("The data is bad.")
    namespace.until("the init container", lambda: ready(crowd.status("init-image"))["reason"] == "ImagePullFailed")
    assert "proxy:1" in ready(crowd.status("init-image"))["message"]
    assert ready(crowd.status("sidecar-image"))["reason"] == "Preparing", "the trainer itself runs"


def test_objects_with_forged_labels_and_owners_are_neither_asked_nor_believed(
    operator: Any, namespace: Any, crowd: Crowd, endpoints: dict[str, Endpoint]
) -> None:
    honest, forged = endpoints["honest"], endpoints["forged"]
    (real,) = crowd.train("reviews").values()
    crowd.run(real, honest.address)
    namespace.until("its progress", lambda: crowd.status("reviews").get("progress", {}).get("percent") == 50)
    resource = namespace.get("ftj", "reviews")["metadata"]
    (job,) = [j["metadata"] for j in namespace.all("jobs") if j["metadata"]["name"].endswith("-train")]
    labels = {key: value for key, value in real["metadata"]["labels"].items() if "luthier" in key or "app" in key}
    odd = {"batch.kubernetes.io/job-completion-index": "9" * 5000}
    owners: dict[str, list[Raw]] = {
        "no-owner": [],
        "resource-as-owner": [owner("luthier.dev/v1alpha1", "FineTuneJob", resource)],
        "unknown-owner": [owner("batch/v1", "Job", {**job, "uid": "00000000-0000-0000-0000-000000000000"})],
    }
    for name, references in owners.items():
        metadata = {"name": name, "labels": labels, "annotations": odd, "ownerReferences": references}
        spec = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        namespace.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        if name != "unknown-owner":  # which the garbage collector removes
            crowd.run({"metadata": {"name": name}}, forged.address)
    asked = honest.asked
    namespace.until("the real pod to be asked", lambda: honest.asked >= asked + 4)
    assert forged.asked == 0
    assert crowd.status("reviews")["progress"]["percent"] == 50
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
    terminated = {"exitCode": 0, "message": result(runKey=job["annotations"]["luthier.dev/run-key"]), **times}
    namespace.play({"metadata": {"name": "no-owner"}}, "Succeeded", {"terminated": terminated})
    # The Job still runs, so it is the real pod's word that counts.
    namespace.end(
        real, 0, result(runKey=job["annotations"]["luthier.dev/run-key"], version="v7", uri="s3://m/versions/v7")
    )
    namespace.until("the version", lambda: crowd.status("reviews").get("artifact", {}).get("version") == "v7")


def test_a_job_that_cannot_be_the_operators_is_not_taken_for_one(operator: Any, namespace: Any, crowd: Crowd) -> None:
    crowd.submit("rests", suspend=True)
    namespace.await_reason("ftj", "rests", "Suspended")
    resource = namespace.get("ftj", "rests")["metadata"]
    for name, stage, run in (("forged", "train", "Not_A.Name"), ("x-train", "", "x"), ("y-prepare", "prepare", "y")):
        labels = {
            "app.kubernetes.io/managed-by": "luthier",
            "app.kubernetes.io/component": stage,
            "luthier.dev/finetunejob": "rests",
            "luthier.dev/run": run,
        }
        owners = [owner("luthier.dev/v1alpha1", "FineTuneJob", resource)]
        metadata = {
            "name": name,
            "labels": labels,
            "ownerReferences": owners,
            "annotations": {"luthier.dev/run-key": ""},
        }
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": pod}}}
        namespace.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    namespace.merge("ftj", "rests", {"spec": {"suspend": False}})
    crowd.pods("prepare", ["rests"])
    status = namespace.await_reason("ftj", "rests", "Preparing")["status"]
    assert status["currentRun"]["name"].startswith("rests-")
    assert Counter(namespace.jobs) >= Counter(["forged", "x-train", "y-prepare"]), "nothing foreign is deleted"


def test_somebody_elses_job_of_the_same_name_is_said_and_not_touched(
    operator: Any, namespace: Any, crowd: Crowd
) -> None:
    crowd.submit("reviews")
    crowd.pods("prepare", ["reviews"])
    (name,) = namespace.jobs
    namespace.kubectl("delete", "ftj", "reviews")
    namespace.until("the Job to go", lambda: not namespace.jobs)
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}},
    }
    namespace.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    crowd.submit("reviews")
    namespace.until("the sentence", lambda: "is not Luthier's; delete it" in ready(crowd.status("reviews"))["message"])
    (job,) = namespace.all("jobs")
    assert (
        job["spec"]["template"]["spec"]["containers"][0]["image"] == "i" and "deletionTimestamp" not in job["metadata"]
    )


def owner(api_version: str, kind: str, metadata: Raw) -> Raw:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
