"""Hostile, slow and odd clients of the real server, with Ray Serve and its proxy as in production.

Beside each storm a steady stream of normal requests is answered, and the server's memory stays as it is. The tests with
the most clients are in the tier `slow`.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from luthier_api.keys import digest_of
from luthier_serving.haproxy import SENTENCES
from support.serving.hostile import MARKER, Hostile, request, responses, send, storm
from support.serving.local_ray import LocalRay, server_config
from support.serving.steady import HAPROXY, SERVER, Memory, Steady

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SEED = 20_261_128
# What the configuration here allows for the head (conftest.py) and for the body of a request.
HEAD_S = BODY_S = 5
# Growth of a process in a storm, once it is warm; what it had before is in the report.
FLAT_MB = 24.0
# What is no HTTP, or is never completed, HAProxy 2.8 refuses in its own words (its issue 3032).
OF_HAPROXY = b"<html><body><h1>40"
# Of its own it does not count 413 as a refusal; nor 404, where the name of a model that is not here comes first. And a
# schema cannot say that a shape is the length of its data.
SCHEMATHESIS = """
[checks.negative_data_rejection]
expected-statuses = ["400", "404", "405", "413", "415", "422"]
[[operations]]
include-path-regex = "/infer$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "422"]
"""
LIST = {"texts": ["the film was good, the film was bad"] * 1000}


@pytest.fixture(scope="module")
def server(ray: LocalRay, models: Any) -> LocalRay:
    """A server with one version, which waits five seconds for a body and for an answer."""
    configure(ray, models)
    return ray


def configure(ray: LocalRay, models: Any, **limits: int) -> None:
    """Serve the first version with these limits, and wait until they apply."""
    revision = models.revision("rev-1", models.first)
    config = server_config(revision, request_timeout_s=BODY_S, **limits)
    ray.deploy(config)
    ray.wait_for("server", "RUNNING")
    ray.wait_until(lambda: ray.served_version() == models.first.version, 60)
    ray.wait_until(lambda: ray.report().config == digest_of(config.to_wire()), 60)


def processes(server: LocalRay) -> tuple[int, str]:
    """Return the process of the only replica, and how the operator is told of it."""
    [replica] = server.applications()["server"]["deployments"]["Server"]["replicas"]
    return replica["pid"], server.report().replica


def test_schemathesis_finds_nothing_that_the_description_does_not_say(
    server: LocalRay, models: Any, tmp_path: Path
) -> None:
    """All of its checks: codes, types and schemas as described, what is valid answered, what is not refused, no 5xx."""
    configure(server, models, max_texts=9, max_text_characters=99)  # or its requests at the limits take half a minute
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    options = {
        "--checks": "all",
        "--phases": "examples,coverage,fuzzing",
        "--mode": "all",
        "--max-examples": "40",
        "--request-timeout": "20",
        "--suppress-health-check": "all",
        "--warnings": "off",
    }
    command = [sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    arguments = [part for option in options.items() for part in option]
    done = subprocess.run(
        [*command, *arguments, "--generation-deterministic", "--continue-on-failure", "--no-color"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    said = "\n".join(line[:300] for line in [*done.stdout.splitlines(), *done.stderr.splitlines()])
    configure(server, models)
    assert done.returncode == 0, said


def fault(hostile: Hostile, received: bytes) -> str | None:
    """Return what is wrong with an answer, if something is."""
    try:
        answers = responses(received)
    except (ValueError, IndexError) as error:
        return f"{error}"
    if hostile.kind in ("smuggling", "two_lengths") and (MARKER.encode() in received or len(answers) > 1):
        return f"two requests were taken from it: {received[:500]!r}"
    for answer in answers:
        if answer.status >= 500:
            return f"{answer.status}: {answer.body[:300]!r}"
        if answer.status < 400 or not answer.body:  # HEAD has no body
            continue
        if answer.status in (400, 408) and OF_HAPROXY in answer.body:
            continue
        if not answer.headers.get("content-type", "").startswith("application/json"):
            return f"{answer.status} of {answer.headers.get('content-type')}: {answer.body[:200]!r}"
        document = json.loads(answer.body)
        if set(document) != {"error"} or not document["error"].endswith((".", ".)")) or "\n" in document["error"]:
            return f"{answer.status}: {document}"
    return None


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_hostile_requests_get_one_sentence_each_and_disturb_nobody(server: LocalRay, count: int) -> None:
    before, faults, codes = processes(server), list[str](), Counter[str]()
    waiting = storm(SEED, count)
    began = time.monotonic()

    async def client(number: int) -> None:
        random = Random(number)
        for hostile in waiting:
            try:
                received = await send(server.http_port, hostile, random)
                found = fault(hostile, received)
            except TimeoutError:
                found = "no answer and no end of the connection"
            if found:
                faults.append(f"{hostile.kind} {hostile.sent[:200]!r}: {found}")
            elif hostile.whole:
                codes.update({f"{hostile.kind} {answer.status}" for answer in responses(received)} or {hostile.kind})

    async with Memory(server) as memory, Steady(server.url) as steady:
        await asyncio.gather(*(client(number) for number in range(16)))
        took_s = time.monotonic() - began
        while len(steady.seconds) < 50:
            await asyncio.sleep(0.1)
    print(f"    {count} hostile requests in {took_s:.0f} s; {steady}; {memory}")
    print(f"    {dict(sorted(codes.items()))}")
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults[:20])
    assert steady.failures == [] and steady.p99_s < 2
    assert processes(server) == before, "the replica went on"
    if count > 5000:
        assert memory.growth(SERVER, since=0.3) < FLAT_MB and memory.growth(HAPROXY, since=0.3) < FLAT_MB


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process hold a connection for each of its clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(8192, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def drip(port: int, at_once: bytes, drops: bytes) -> tuple[bytes, float]:
    """Send a byte a second until the server hangs up; return what it said, and after how many seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    reading = asyncio.create_task(reader.read(-1))
    writer.write(at_once)
    for drop in drops:
        if (await asyncio.wait([reading], timeout=1))[0]:
            break
        writer.write(bytes([drop]))
    writer.close()
    try:
        return await asyncio.wait_for(reading, 1), time.monotonic() - began
    except (TimeoutError, ConnectionError):
        return b"", time.monotonic() - began


@pytest.mark.parametrize("clients", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_clients_that_send_a_byte_a_second_are_told_so_and_let_go_and_harm_nobody(
    server: LocalRay, clients: int, many_files: None
) -> None:
    line = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
    slow_heads = (line, b"X-Slow: " + b"a" * 60)
    slow_bodies = (line + b"Content-Length: 1000\r\n\r\n", b'{"text": "' + b"a" * 60)
    before = processes(server)
    async with Memory(server) as memory, Steady(server.url) as steady:
        dripping = [drip(server.http_port, *(slow_heads, slow_bodies)[number % 2]) for number in range(clients)]
        told = await asyncio.gather(*dripping)
        await asyncio.sleep(1.5)  # two more samples of the memory
    print(f"    {clients} slow clients; {steady}; {memory}")
    for number, (received, after_s) in enumerate(told):
        what, limit_s = ("body", BODY_S) if number % 2 else ("head", HEAD_S)
        [answer] = responses(received) or [None]
        assert answer and answer.status == 408, f"slow {what}: {received!r} after {after_s:.0f} s"
        assert OF_HAPROXY in answer.body if what == "head" else json.loads(answer.body) == {"error": SENTENCES[408]}
        assert limit_s - 1 <= after_s <= limit_s + 10
    assert steady.failures == [] and steady.p99_s < 2
    assert processes(server) == before
    assert memory.growth(HAPROXY) < FLAT_MB + clients * 0.02
    assert memory.growth(SERVER) < FLAT_MB + clients * 0.02


async def test_clients_that_do_not_read_their_answers_harm_nobody(server: LocalRay) -> None:
    body = json.dumps(LIST).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with Memory(server) as memory, Steady(server.url) as steady:
        writers = []
        for _ in range(30):
            _, writer = await asyncio.open_connection("127.0.0.1", server.http_port, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(head + body)
            writers.append(writer)
        await asyncio.sleep(3)
        for writer in writers:
            writer.transport.abort()
    print(f"    {steady}; {memory}")
    assert steady.failures == [] and len(steady.seconds) > 50


async def test_twenty_kilobytes_of_cookies_are_no_hindrance(server: LocalRay) -> None:
    cookies = "; ".join(f"cookie-{number}={'v' * 100}" for number in range(180))
    assert len(cookies) > 20_000
    asked = request(b'{"text": "good"}', b"Cookie: " + cookies.encode())
    received = await send(server.http_port, Hostile("cookies", asked), Random(0))
    [answer] = responses(received)
    assert answer.status == 200 and json.loads(answer.body)["input_text"] == "good"


async def test_a_client_cannot_set_its_own_time_limit_or_have_ray_fail_on_a_header(server: LocalRay) -> None:
    for header in (
        b"X-Request-Timeout-Seconds: 0.000001",
        b"X-Request-Id: \xff\xfe",
        b"serve_multiplexed_model_id: \xff",
    ):
        received = await send(server.http_port, Hostile("ray", request(b'{"text": "good"}', header)), Random(0))
        assert [answer.status for answer in responses(received)] == [200], header
