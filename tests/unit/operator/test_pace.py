"""How fast the API server is asked by all requests together, and with which token."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web

from luthier_operator.kube import Access, Backoffs, Pace, keeping

pytestmark = pytest.mark.unit


async def wait_of(pace: Pace) -> float:
    begun = time.monotonic()
    await pace.turn()
    return time.monotonic() - begun


async def test_nobody_waits_while_nothing_is_wrong() -> None:
    assert await wait_of(Pace()) < 0.05


async def test_each_failure_makes_everybody_wait_longer_until_one_request_succeeds() -> None:
    pace = Pace()
    waits = []
    for _ in range(3):
        pace.failed()
        waits.append(await wait_of(pace))
    assert 0.05 < waits[0] < waits[1] < waits[2]
    pace.answered(200, {})
    pace.failed()
    assert await wait_of(pace) < waits[1]


async def test_failures_at_the_same_time_count_as_one() -> None:
    pace = Pace()
    for _ in range(100):
        pace.failed()
    assert await wait_of(pace) < 0.2


async def test_what_the_server_asks_for_holds_though_another_request_succeeds() -> None:
    pace = Pace()
    pace.failed(retry_after_s=0.5)
    pace.answered(200, {})
    assert await wait_of(pace) > 0.4


async def test_a_watch_that_ends_at_once_is_not_opened_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier_operator.kube.pace._BETWEEN_WATCHES_S", 0.05)
    pace, begun = Pace(), time.monotonic()
    for _ in range(4):
        await pace.turn("/apis/batch/v1/jobs")
        await pace.turn("/api/v1/pods")
    assert 0.14 < time.monotonic() - begun < 0.5


@asynccontextmanager
async def server(*answers: web.Response) -> AsyncIterator[str]:
    left = iter(answers)

    async def answer(_: web.Request) -> web.Response:
        return next(left)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_session_waits_as_long_as_an_answer_to_another_session_asked_for() -> None:
    pace = Pace()
    busy = web.Response(status=429, headers={"Retry-After": "1"})
    async with (
        server(busy, web.Response()) as url,
        aiohttp.ClientSession(trace_configs=[keeping(pace)]) as one,
        aiohttp.ClientSession(trace_configs=[keeping(pace)]) as other,
    ):
        begun = time.monotonic()
        await one.get(url)
        await other.get(url)
        assert time.monotonic() - begun > 0.9


async def test_a_server_that_is_away_is_left_alone_and_a_request_that_was_called_off_says_nothing() -> None:
    pace = Pace()
    async with aiohttp.ClientSession(trace_configs=[keeping(pace)]) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get("http://127.0.0.1:1")
        assert await wait_of(pace) > 0.05
        pace.answered(200, {})
        async with server() as url:
            asking = asyncio.create_task(session.get(url, timeout=aiohttp.ClientTimeout(total=5)))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert await wait_of(pace) < 0.05


def test_kopf_s_attempts_grow_rarer_and_never_end() -> None:
    pauses = list(itertools.islice(Backoffs(), 1000))
    assert max(pauses[:2]) <= 0.2 and min(pauses[10:]) >= 2.5 and max(pauses) <= 5.0


async def test_a_rotated_token_is_read_when_the_old_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "c", "user": {"tokenFile": str(token)}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("luthier_operator.kube.access._AFTER_REFUSAL_S", 0.0)
    access = await Access.from_environment()
    token.write_text("new")
    assert await access.authorization() == {"Authorization": "Bearer old"}
    await access.refused()
    assert await access.authorization() == {"Authorization": "Bearer new"}
