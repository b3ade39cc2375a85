"""Training pods that answer the operator badly: their resource says one sane sentence, and nobody else notices.

The tests are the node, and the training pods: real servers on addresses of this machine, which misbehave on purpose.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import psutil
import pytest

from luthier_api.documents import TRAINER_PORT
from support.operator.crowd import ESCAPE, Crowd, assert_fit_for_a_terminal, each, ready
from support.operator.endpoints import OK, Behaviour, Endpoint, answer, says

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_bug")]

Raw = dict[str, Any]


def goes_on(first: bytes, again: bytes, pause_s: float = 0.0) -> Behaviour:
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
HOSTILE: dict[str, Behaviour] = {
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
    }
    found = {}
    for number, (name, behave) in enumerate(behaviours.items(), 1):
        found[name] = Endpoint(ELSEWHERE if name == "elsewhere" else f"127.0.88.{number}", behave)
    yield found
    for endpoint in found.values():
        endpoint.close()


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
