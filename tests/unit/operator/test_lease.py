"""Who may take the Lease and when, until when its holder may write, and that no write passes a closed fence."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from luthier_operator.kube import Fence, Transient, counting, fencing
from luthier_operator.kube.lease import Leadership
from luthier_operator.model.defaults import LeaseTerms
from luthier_operator.ops.metrics import REQUESTS
from support.operator.leases import Leases

pytestmark = pytest.mark.unit

TERMS = LeaseTerms(duration_s=10, deadline_s=7.0, renew_s=2.0, poll_s=1.0)
Raw = dict[str, Any]


class Lost(Exception):
    """In place of the end of the process."""


def lost(why: str) -> None:
    raise Lost(why)


class Candidate:
    """One operator with a clock that the test moves; its steps are those of `win` and `keep`, without the waiting."""

    def __init__(self, leases: Leases, clock: Callable[[], float], name: str, terms: LeaseTerms = TERMS) -> None:
        self.fence = Fence(lambda: lost("fenced"), clock)
        self.leadership = Leadership(leases, self.fence, "ns", "luthier", name, terms, lost, clock)  # type: ignore[arg-type]

    async def take(self) -> bool:
        return await self.leadership._attempt(self.leadership._take)

    async def renew(self) -> bool:
        return await self.leadership._attempt(self.leadership._renew)

    @property
    def may_write(self) -> bool:
        return self.fence.open


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases() -> Leases:
    return Leases()


async def held(leases: Leases, clock: Clock, name: str = "a") -> Candidate:
    """A candidate that holds the Lease, which was there and free."""
    leases.lease = {"metadata": {"resourceVersion": "0"}, "spec": {}}
    candidate = Candidate(leases, clock, name)
    assert not candidate.may_write, "before it leads"
    assert await candidate.take() and candidate.may_write
    return candidate


async def test_a_lease_that_is_renewed_stays_with_its_holder(leases: Leases, clock: Clock) -> None:
    a, b = await held(leases, clock), Candidate(leases, clock, "b")
    for _ in range(20):
        assert not await b.take()
        clock.now += 2
        assert await a.renew() and a.may_write
    assert leases.holder == "a"


async def test_one_that_is_not_renewed_is_taken_when_its_duration_was_seen_to_pass(
    leases: Leases, clock: Clock
) -> None:
    a, b = await held(leases, clock), Candidate(leases, clock, "b")
    clock.now += 9
    assert not await b.take(), "b looks for the first time"
    clock.now += 9.9
    assert not await b.take() and not a.may_write
    clock.now += 0.2
    assert await b.take() and b.may_write
    assert leases.lease and leases.lease["spec"]["leaseTransitions"] == 2


async def test_the_holders_duration_counts_not_the_watchers(leases: Leases, clock: Clock) -> None:
    await held(leases, clock)
    hasty = Candidate(leases, clock, "b", LeaseTerms(duration_s=1, deadline_s=0.5, renew_s=0.1, poll_s=0.1))
    assert not await hasty.take()
    clock.now += 9
    assert not await hasty.take()


async def test_a_lease_that_is_missing_is_held_by_somebody_unknown(leases: Leases, clock: Clock) -> None:
    a = Candidate(leases, clock, "a")
    assert not await a.take()
    clock.now += 9.9
    assert not await a.take()
    clock.now += 0.2
    assert await a.take() and leases.holder == "a"


async def test_a_lease_that_is_given_back_is_taken_at_once(leases: Leases, clock: Clock) -> None:
    a, b = await held(leases, clock), Candidate(leases, clock, "b")
    assert not await b.take()
    await a.leadership.close()
    assert not a.may_write
    assert await b.take()


async def test_one_that_no_longer_leads_does_not_give_back_what_is_not_its_own(leases: Leases, clock: Clock) -> None:
    a, b = await held(leases, clock), Candidate(leases, clock, "b")
    await b.take()
    clock.now += 11
    assert await b.take()
    await a.leadership.close()
    assert leases.holder == "b"


async def test_of_two_that_take_it_at_the_same_time_one_gets_it(leases: Leases, clock: Clock) -> None:
    leases.lease = {"metadata": {"resourceVersion": "0"}, "spec": {}}
    a, b = Candidate(leases, clock, "a"), Candidate(leases, clock, "b")
    seen = copy.deepcopy(leases.lease)
    assert await a.take()

    async def get_as_it_was(*_: str) -> Raw:
        return seen

    leases.get = get_as_it_was  # type: ignore[method-assign]
    assert not await b.take() and not b.may_write


@pytest.mark.parametrize("change", ["deleted", "taken"])
async def test_a_lease_that_is_lost_ends_its_holder(leases: Leases, clock: Clock, change: str) -> None:
    a = await held(leases, clock)
    assert leases.lease
    if change == "deleted":
        leases.lease = None
    else:
        leases.lease["metadata"]["resourceVersion"] = "99"
        leases.lease["spec"]["holderIdentity"] = "b"
    with pytest.raises(Lost, match="was deleted" if change == "deleted" else "is held by b now"):
        await a.renew()


async def test_one_that_was_only_labelled_or_whose_answer_was_lost_is_renewed_all_the_same(
    leases: Leases, clock: Clock
) -> None:
    a = await held(leases, clock)
    leases.lose_answers = True
    clock.now += 5
    assert not await a.renew()
    leases.lose_answers = False
    clock.now += 1
    assert await a.renew()
    clock.now += 6.9
    assert a.may_write


async def test_the_time_to_write_counts_from_when_the_renewal_was_sent(leases: Leases, clock: Clock) -> None:
    a = await held(leases, clock)
    replace = leases.replace

    async def slow(manifest: Raw) -> Raw:
        clock.now += 5
        return await replace(manifest)

    leases.replace = slow  # type: ignore[method-assign]
    assert await a.renew()
    clock.now += 1.9
    assert a.may_write
    clock.now += 0.2
    assert not a.may_write


async def test_an_api_server_that_is_away_ends_a_leader_at_its_deadline_and_is_logged_once(
    leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    why = asyncio.get_running_loop().create_future()
    leases.lease = {"metadata": {"resourceVersion": "0"}, "spec": {}}
    fence = Fence(lambda: lost("fenced"))
    terms = LeaseTerms(duration_s=1, deadline_s=0.2, renew_s=0.02, poll_s=0.02)
    leadership = Leadership(leases, fence, "ns", "luthier", "a", terms, why.set_result)  # type: ignore[arg-type]
    await leadership.win()
    leases.away = Transient("nobody answers")
    keeping = asyncio.create_task(leadership.keep())
    async with asyncio.timeout(5):
        assert "was not renewed for 0.2 s (the Lease ns/luthier cannot be" in await why
    keeping.cancel()
    assert not fence.open
    assert len([record for record in caplog.records if "nobody answers" in record.message]) == 1


@given(st.lists(st.sampled_from(["a", "b", "c", "cut a", "cut b", "heal", "1", "3", "6", "freeze a"]), max_size=60))
def test_however_it_goes_two_may_never_write_at_the_same_time(steps: list[str]) -> None:
    async def scenario() -> None:
        leases, clock = Leases(), Clock()
        leases.lease = {"metadata": {"resourceVersion": "0"}, "spec": {}}
        candidates = {name: Candidate(leases, clock, name) for name in "abc"}
        leading: set[str] = set()
        cut: set[str] = set()
        for step in steps:
            match step.split():
                case ["cut", name]:
                    cut.add(name)
                case ["heal"]:
                    cut.clear()
                case ["freeze", name]:
                    clock.now += 20  # the others go on; a writes next, before it does anything else
                case [name] if name in candidates:
                    leases.away = Transient("cut off") if name in cut else None
                    try:
                        if name not in leading and await candidates[name].take():
                            leading.add(name)
                        elif name in leading:
                            await candidates[name].renew()
                    except Lost:
                        candidates[name] = Candidate(leases, clock, name)
                        leading.discard(name)
                case [seconds]:
                    clock.now += float(seconds)
            assert sum(each.may_write for each in candidates.values()) <= 1
        for each in candidates.values():
            if each.leadership._watchdog:
                each.leadership._watchdog.cancel()

    asyncio.run(scenario())


@asynccontextmanager
async def server(seen: list[str], held: asyncio.Event | None = None) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        seen.append(f"{request.method} {request.path}")
        if held:
            await held.wait()
        return web.Response(status=409 if request.path.endswith("taken") else 200)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


LEASE = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/luthier"


async def test_a_closed_fence_lets_reads_and_the_lease_through_and_no_write(clock: Clock) -> None:
    seen: list[str] = []
    fence = Fence(lambda: lost("fenced"), clock)
    async with server(seen) as url, aiohttp.ClientSession(trace_configs=[fencing(fence)]) as session:
        writes = [(method, "/jobs") for method in ("POST", "PUT", "PATCH", "DELETE")]
        reads = [("GET", "/jobs"), ("PUT", LEASE)]
        for until in (clock.now + 1, clock.now):  # the second time over connections that are open already
            fence.until = until
            for method, path in writes + reads:
                try:
                    async with session.request(method, url + path):
                        pass
                except Lost:
                    seen.append(f"no {method} {path}")
    passed = [" ".join(each) for each in writes + reads]
    assert seen == [*passed, *(f"no {each}" for each in passed[:4]), *passed[4:]]


async def test_a_fence_that_closes_while_a_write_waits_for_a_connection_holds_it(clock: Clock) -> None:
    seen: list[str] = []
    fence = Fence(lambda: lost("fenced"), clock)
    answer = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=1)
    traced = aiohttp.ClientSession(connector=connector, trace_configs=[fencing(fence)])
    async with server(seen, answer) as url, traced as session, asyncio.timeout(5):
        fence.until = clock.now + 1
        reading = asyncio.create_task(session.get(url + "/jobs"))
        while not seen:
            await asyncio.sleep(0)
        writing = asyncio.create_task(session.post(url + "/jobs"))
        await asyncio.sleep(0)
        clock.now += 2
        answer.set()
        (await reading).release()
        with pytest.raises(Lost):
            await writing
    assert seen == ["GET /jobs"]


async def test_requests_are_counted_by_verb_and_answer() -> None:
    def counted(verb: str, code: str) -> float:
        return REQUESTS.labels(verb, code)._value.get()

    before = [counted("patch", "200"), counted("create", "409"), counted("watch", "200"), counted("get", "none")]
    async with server([]) as url, aiohttp.ClientSession(trace_configs=[counting()]) as session:
        for method, path in (("PATCH", "/a"), ("POST", "/taken"), ("GET", "/jobs?watch=true")):
            async with session.request(method, url + path):
                pass
    with pytest.raises(aiohttp.ClientError):
        async with aiohttp.ClientSession(trace_configs=[counting()]) as session:
            await session.get(url)  # nobody listens there any more
    after = [counted("patch", "200"), counted("create", "409"), counted("watch", "200"), counted("get", "none")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]
