"""What a training pod may answer: older and newer releases are understood, anything else counts as no answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from luthier_api.documents import ProgressDocument
from luthier_operator.gather.pod_client import Answer, ProgressReader
from luthier_operator.plan.finetunejob.status import progress_of

pytestmark = pytest.mark.unit

LEAST: dict[str, Any] = {"stage": "Training", "updatedAt": "2026-01-01T00:00:00Z"}


async def answer_to(body: str, status: int = 200) -> ProgressDocument | None:
    """Ask a pod that answers so."""

    async def progress(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    pod = web.Application()
    pod.router.add_get("/progress", progress)
    async with TestServer(pod, host="127.0.0.1") as server:
        assert server.port
        reader = ProgressReader(port=server.port)
        try:
            return await reader.read("127.0.0.1")
        finally:
            await reader.close()


async def test_a_pod_of_an_older_release_leaves_fields_out() -> None:
    found = await answer_to(json.dumps(LEAST))
    assert found and (found.checkpoint_step, found.tokens_per_second) == (None, None)


async def test_a_pod_of_a_newer_release_may_say_more() -> None:
    found = await answer_to(json.dumps({**LEAST, "step": 7, "checkpointStep": 5, "joules": 3}))
    assert found and (found.step, found.checkpoint_step) == (7, 5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 200),
        ("not json", 200),
        (json.dumps({**LEAST, "step": -1}), 200),
        (json.dumps({**LEAST, "tokensPerSecond": "many"}), 200),
        (json.dumps(LEAST), 500),
        (json.dumps({**LEAST, "more": "x" * 70_000}), 200),
        (json.dumps(LEAST), 302),
        ("[" * 60_000, 200),
        ('{"stage": "\\ud800"}', 200),
        ('{"step": ' + "9" * 60_000 + "}", 200),
        (json.dumps({**LEAST, "stage": "\x1b[2J"}), 200),
        (json.dumps({**LEAST, "step": 2**31}), 200),
        (json.dumps({**LEAST, "step": 130, "totalSteps": 120}), 200),
        (json.dumps({**LEAST, "epoch": float("nan")}), 200),
        (json.dumps({**LEAST, "epoch": float("inf")}), 200),
        (json.dumps({**LEAST, "etaSeconds": 1e300}), 200),
        (json.dumps({**LEAST, "etaSeconds": -1}), 200),
        (json.dumps({**LEAST, "examplesPerSecond": float("inf")}), 200),
        (json.dumps({**LEAST, "gpuMemoryBytes": 2**63}), 200),
        (json.dumps({**LEAST, "metrics": {"loss": "low"}}), 200),
    ],
)
async def test_anything_else_counts_as_no_answer(body: str, status: int) -> None:
    assert await answer_to(body, status) is None


def test_metrics_that_cannot_be_shown_are_left_out_and_there_are_never_too_many() -> None:
    odd = {"nan": float("nan"), "\x1b[31m": 1, "": 1, "n" * 129: 1, "\u202eloss": 1, "huge": 1e308, "loss": 0.5}
    assert set(Answer.model_validate({**LEAST, "metrics": odd}).metrics) == {"huge", "loss"}
    many = {str(number): 1.0 for number in range(5000)}
    shown = progress_of(Answer.model_validate({**LEAST, "metrics": {"loss": 0.5, **many}})).metrics
    assert len(shown) == 64 and shown["loss"] == "0.5"


def test_whatever_counts_as_an_answer_can_be_shown() -> None:
    largest = {"epoch": 1e15, "etaSeconds": 2**31 - 1, "tokensPerSecond": 1e15, "gpuMemoryBytes": 2**63 - 1}
    shown = progress_of(Answer.model_validate({**LEAST, **largest, "metrics": {"loss": -1e300}}))
    assert len(shown.epoch) <= 32 and shown.metrics == {"loss": "-1e+300"} and shown.eta_seconds == 2**31 - 1


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fe80::1%lo",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "localhost",
        "",
    ],
)
async def test_an_address_that_no_pod_has_is_not_asked(address: str) -> None:
    reader = ProgressReader()
    assert await reader.read(address) is None
    assert reader._session is None
    await reader.close()


Wire = Callable[[asyncio.StreamWriter], Any]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS = b"x" * 65536


async def sends(wire: bytes | AsyncIterator[bytes], timeout_s: float = 0.3) -> tuple[ProgressDocument | None, float]:
    """Ask a pod that writes these bytes; return the answer, and how long it took."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if isinstance(wire, bytes):
                writer.write(wire)
                await writer.drain()
            else:
                async for chunk in wire:
                    writer.write(chunk)
                    await writer.drain()
        except ConnectionError:
            pass  # whoever asked has gone
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader = ProgressReader(timeout_s, server.sockets[0].getsockname()[1])
    begun = asyncio.get_running_loop().time()
    try:
        return await reader.read("127.0.0.1"), asyncio.get_running_loop().time() - begun
    finally:
        await reader.close()
        server.close()


async def for_ever(first: bytes, again: bytes, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    yield first
    while True:
        yield again
        await asyncio.sleep(pause_s)


@pytest.mark.parametrize(
    ("first", "again", "pause_s"),
    [
        pytest.param(OK + b"\r\n", ENDLESS, 0.0, id="a body without end"),
        pytest.param(OK + b"Content-Length: 104857600\r\n\r\n", ENDLESS, 0.0, id="100 MB"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 9000, 0.0, id="chunks of a byte"),
        pytest.param(OK + b"\r\n", b" ", 0.02, id="a byte at a time"),
        pytest.param(OK, b"X: " + b"x" * 4000 + b"\r\n", 0.0, id="headers without end"),
        pytest.param(OK + b"X: ", ENDLESS, 0.0, id="a header without end"),
        pytest.param(b"", ENDLESS, 0.0, id="a status line without end"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 900, 0.0, id="100 for ever"),
    ],
)
async def test_a_pod_that_writes_without_end_takes_neither_memory_nor_time(
    first: bytes, again: bytes, pause_s: float
) -> None:
    tracemalloc.start()
    try:
        answer, took_s = await sends(for_ever(first, again, pause_s), timeout_s=0.3 if pause_s else 10)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer is None and took_s < 5
    assert most_bytes < 8 * 2**20


async def test_nothing_is_unpacked() -> None:
    packed = gzip.compress(json.dumps({**LEAST, "more": " " * 50_000}).encode())
    length = f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    assert (await sends(OK + length + packed))[0] is None


async def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text=json.dumps(LEAST))

    application = web.Application()
    application.router.add_get("/{path:.*}", elsewhere)
    async with TestServer(application, host="127.0.0.1") as server:
        to = f"HTTP/1.1 307 See\r\nLocation: {server.make_url('/progress')}\r\nContent-Length: 0\r\n\r\n"
        assert (await sends(to.encode()))[0] is None
    assert not asked


@pytest.mark.parametrize("wire", [b"", OK, b"\x00\xff" * 100, b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"])
async def test_a_connection_that_breaks_off_counts_as_no_answer(wire: bytes) -> None:
    assert (await sends(wire))[0] is None


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    found = await answer_to(json.dumps(LEAST))
    assert found is not None
