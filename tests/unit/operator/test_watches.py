"""A list and its watch, against a server that answers as API servers, proxies and networks do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web

from luthier_operator.kube import Access, Cluster, Pace, Watch, Watched
from luthier_operator.model.views import Raw

pytestmark = pytest.mark.unit

JOBS = Watched("batch", "v1", "jobs", "of=us")
PATH = "/apis/batch/v1/jobs"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def thing(name: str, version: int) -> Raw:
    return {"metadata": {"name": name, "namespace": "n", "uid": f"uid-{name}", "resourceVersion": str(version)}}


def event(kind: str, raw: object) -> bytes:
    return json.dumps({"type": kind, "object": raw}).encode() + b"\n"


def page(version: int, *items: Raw, then: str = "") -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": str(version), "continue": then}, "items": [*items]})

    return answer


def status(code: int, reason: str = "") -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "message": "no", "reason": reason}, status=code)

    return answer


def telling(*chunks: bytes, then: str = "end") -> Answer:
    """Tell that, and then end, or hold on and say nothing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.01)
        if then == "hold":
            await asyncio.sleep(60)
        return response

    return answer


HOLD = telling(then="hold")


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.lists: list[tuple[int, set[tuple[str, str]]]] = []
        self.breaks_at = ""

    def put(self, raw: Raw) -> None:
        if raw["metadata"]["name"] == self.breaks_at:
            raise ValueError("a bug")
        self.known[raw["metadata"]["uid"]] = int(raw["metadata"]["resourceVersion"])

    def drop(self, uid: str, version: int) -> None:
        del self.known[uid]

    def listed(self, namespace: str | None, version: int, names: Collection[tuple[str, str]]) -> None:
        self.lists.append((version, set(names)))


class Server:
    """Answers lists and watches as was said; what is asked beyond that is held."""

    def __init__(self, lists: list[Answer], watches: list[Answer]) -> None:
        self._lists, self._watches = iter(lists), iter(watches)
        self.asked: list[dict[str, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        answers: Iterator[Answer] = self._watches if "watch" in request.query else self._lists
        return await next(answers, HOLD)(request)


class At:
    """Where a server is."""

    def __init__(self, server: str) -> None:
        self.server = server

    async def authorization(self) -> dict[str, str]:
        return {}

    async def refused(self) -> None:
        """There is no other token."""

    def session(self, traces: object) -> Any:
        return Access.session(cast(Access, self))

    _tls = staticmethod(lambda: True)
    _configuration = type("Configuration", (), {"proxy": None})


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier_operator.kube.watches._BETWEEN_S", 0.05)
    monkeypatch.setattr("luthier_operator.kube.client._SILENT_S", 0.5)


@asynccontextmanager
async def watching(server: Server, watched: Watched = JOBS) -> AsyncIterator[tuple[Watch, Heard]]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    at = At(f"http://127.0.0.1:{runner.addresses[0][1]}")
    cluster = Cluster(cast(Access, at), Pace(), 5.0)
    heard = Heard()
    watch = Watch(cluster, watched, heard, absent_s=0.05)
    running = asyncio.create_task(watch.run())
    yield watch, heard
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await cluster.close()
    await runner.cleanup()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_listed_page_by_page_is_told_and_then_what_becomes_of_it() -> None:
    changes = event("MODIFIED", thing("a", 11)) + event("DELETED", thing("b", 12)) + event("ADDED", thing("c", 13))
    server = Server([page(10, thing("a", 3), then="more"), page(10, thing("b", 4))], [telling(changes)])
    async with watching(server) as (watch, heard):
        await watch.settled()
        assert heard.lists == [(10, {("n", "a"), ("n", "b")})]
        await until(lambda: heard.known == {"uid-a": 11, "uid-c": 13})
        await until(lambda: len(server.asked) > 3)
    first, second, follow, again = server.asked[:4]
    assert (first["labelSelector"], second["continue"], follow["resourceVersion"]) == ("of=us", "more", "10")
    assert again["resourceVersion"] == "13", "a watch that ends goes on where it was"


async def test_events_are_told_however_they_are_cut_and_half_a_line_is_not() -> None:
    whole, half = event("ADDED", thing("a", 11)), event("ADDED", thing("b", 12))[:20]
    server = Server([page(10)], [telling(whole[:7], whole[7:30], whole[30:] + whole[:9], whole[9:] + half), HOLD])
    async with watching(server) as (_, heard):
        await until(lambda: len(server.asked) == 3)
        assert heard.known == {"uid-a": 11}
    assert server.asked[2]["resourceVersion"] == "11"


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(telling(event("ERROR", {"code": 410}), then="hold"), id="expired"),
        pytest.param(telling(event("ERROR", {"code": 500}), then="hold"), id="an error"),
        pytest.param(telling(b"<html>\n", then="hold"), id="a page of a proxy"),
        pytest.param(telling(b'["ADDED"]\n', then="hold"), id="JSON that is no event"),
        pytest.param(telling(event("ADDED", {"metadata": {}}), then="hold"), id="an object without a version"),
        pytest.param(status(410, "Gone"), id="a refusal: too old"),
    ],
)
async def test_whatever_is_no_event_has_all_listed_again_and_what_is_missing_then_is_gone(told: Answer) -> None:
    server = Server([page(10, thing("a", 3), thing("b", 4)), page(20, thing("b", 15), thing("c", 16))], [told])
    async with watching(server) as (_, heard):
        await until(lambda: heard.known == {"uid-b": 15, "uid-c": 16})
        await until(lambda: server.asked[-1].get("resourceVersion") == "20")


async def test_a_watch_that_is_refused_or_silent_goes_on_where_it_was() -> None:
    server = Server([page(10)], [status(503), telling(event("BOOKMARK", thing("", 14)), then="hold"), HOLD])
    async with watching(server) as (watch, _):
        await until(lambda: len(server.asked) == 4)
        assert [asked["resourceVersion"] for asked in server.asked[1:]] == ["10", "10", "14"]
        assert watch.quiet_s < 5


async def test_a_list_that_fails_is_asked_for_again_and_never_taken_for_an_empty_one() -> None:
    html, cut = web.Response(text="<html>"), web.Response(text='{"items": [')

    async def answer(response: web.Response) -> web.Response:
        return response

    failures = [status(500), status(401), lambda _: answer(html), lambda _: answer(cut)]
    server = Server([page(10, thing("a", 3)), *failures, page(20, thing("a", 3))], [])
    async with watching(server) as (watch, heard):
        await watch.settled()
        await until(lambda: len(server.asked) == 2)
        watch.expire()
        await until(lambda: len(heard.lists) == 2)
        assert heard.known == {"uid-a": 3}


@pytest.mark.parametrize("optional", [True, False])
async def test_a_kind_that_is_installed_later_is_found(optional: bool) -> None:
    server = Server([status(404)] * 5 + [page(10, thing("a", 3))], [])
    async with watching(server, Watched("ray.io", "v1", "rayservices", optional=optional)) as (watch, heard):
        settled = asyncio.create_task(watch.settled())
        await until(lambda: len(server.asked) > 2)
        assert settled.done() == optional and not watch.listed
        await until(lambda: heard.known)
        assert watch.listed and watch.path == "/apis/ray.io/v1/rayservices"
        await settled


async def test_what_cannot_be_understood_keeps_nobody_from_the_rest() -> None:
    server = Server([page(10, thing("bad", 3), thing("good", 4))], [telling(event("ADDED", thing("late", 11)))])
    async with watching(server) as (_, heard):
        heard.breaks_at = "bad"
        await until(lambda: heard.known == {"uid-good": 4, "uid-late": 11})


async def test_a_watch_that_ends_at_once_is_not_opened_again_at_once() -> None:
    server, begun = Server([page(10)], [telling()] * 100), time.monotonic()
    async with watching(server):
        await asyncio.sleep(0.5)
    assert 3 < len(server.asked) - 1 <= (time.monotonic() - begun) / 0.05 + 1


async def test_a_watch_that_nobody_holds_any_more_is_noticed() -> None:
    watch = Watch(cast(Cluster, None), JOBS, Heard())
    before = watch.quiet_s
    await asyncio.sleep(0.02)
    assert watch.quiet_s > before + 0.01
