"""A canary that hangs, or is too slow: the stable revision answers in time, and the failure is the canary's."""

import asyncio
from typing import Any

import pytest

from luthier_api.documents import Mirror
from luthier_serving.answers import Answer, Text
from luthier_serving.errors import Unavailable
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.predictor import Predictor, Target
from luthier_serving.replica.revision_queue import SendBatch
from support.serving.doubles import HeldRevision, answer, config, respond

pytestmark = pytest.mark.unit


def beside(canary: SendBatch, *, weight: int = 100, **changes: Any) -> tuple[Predictor, Counters]:
    """Return a predictor with this canary beside a stable revision that answers; a request may take one second."""
    counters = Counters()
    made = Predictor(counters, lambda revision, texts: None)
    made.configure(
        config(**({"request_timeout_s": 1} | changes)),
        [Target("stable", 100 - weight, True, respond), Target("canary", weight, False, canary)],
    )
    return made, counters


async def revisions(server: Predictor, texts: str) -> set[str]:
    """Return which revisions answer these requests, of one letter each, asked at once."""
    return {revision for revision, _ in await asyncio.gather(*(server.predict([text]) for text in texts))}


async def test_a_canary_that_hangs_costs_nobody_an_answer_and_is_asked_no_more_until_it_answers() -> None:
    held = HeldRevision()
    server, counters = beside(held.send)
    assert await revisions(server, "abc") == {"stable"}
    for text in "defgh":
        assert await revisions(server, text) == {"stable"}
    assert held.batches == [["a", "b", "c"]], "those who come later are not kept waiting"
    counts = counters.report()
    assert (counts["canary"].requests, counts["canary"].errors) == (8, 8)
    assert (counts["stable"].requests, counts["stable"].errors) == (8, 0)
    assert server.pending == 0
    held.released.set()
    async with asyncio.timeout(10):
        while await revisions(server, "i") == {"stable"}:
            await asyncio.sleep(0)
    assert await revisions(server, "jkl") == {"canary"}


async def test_requests_that_wait_for_their_batch_are_given_up_with_those_of_the_batch_that_hangs() -> None:
    held = HeldRevision()
    server, counters = beside(held.send, max_batch_wait_ms=60_000)
    first = asyncio.create_task(revisions(server, "a"))
    await held.started.wait()
    assert await revisions(server, "bc") == {"stable"} == await first
    assert held.batches == [["a"]] and counters.report()["canary"].errors == 3


async def test_a_canary_that_dies_while_it_hangs_is_asked_again() -> None:
    died, batches = asyncio.Event(), list[list[Text]]()

    async def send(texts: list[Text]) -> Answer:
        batches.append(texts)
        if len(batches) == 1:
            await died.wait()
            raise Unavailable("Its replica died.")
        return answer(texts)

    server, _ = beside(send)
    assert await revisions(server, "a") == {"stable"}
    died.set()
    async with asyncio.timeout(10):
        while await revisions(server, "b") == {"stable"}:
            await asyncio.sleep(0)
    assert batches == [["a"], ["b"]]


async def test_a_slow_canary_that_sends_one_batch_after_the_other_does_not_hang() -> None:
    one_at_a_time = asyncio.Lock()

    async def send(texts: list[Text]) -> Answer:
        async with one_at_a_time:
            await asyncio.sleep(0.2)
            return answer(texts)

    server, counters = beside(send, request_timeout_s=2, max_batch_texts=8)
    revision, found = await server.predict([f"text {number}" for number in range(32)])
    assert (revision, len(found.rows)) == ("canary", 32), "0.8 s, with a sign of life every 0.2"
    assert counters.report()["canary"].errors == 0


async def test_a_request_that_a_canary_keeps_waiting_while_it_answers_others_is_answered_in_half_of_its_time() -> None:
    started = asyncio.Event()

    async def send(texts: list[Text]) -> Answer:
        if "stuck" in texts:
            started.set()
            await asyncio.Event().wait()
        return answer(texts)

    server, counters = beside(send, max_batch_wait_ms=0)
    stuck = asyncio.create_task(server.predict(["stuck"]))
    await started.wait()
    async with asyncio.timeout(10):
        while not stuck.done():
            assert await revisions(server, "a") == {"canary"}
            await asyncio.sleep(0.02)
    assert (await stuck)[0] == "stable"
    assert counters.report()["canary"].errors == 1


async def test_a_canary_that_hangs_leaves_half_of_the_places_and_no_word_is_said_against_it_for_the_others() -> None:
    held = HeldRevision()
    server, counters = beside(held.send, max_queued_requests=8, request_timeout_s=60)
    waiting = [asyncio.create_task(server.predict([text])) for text in "abcd"]
    await held.started.wait()
    assert server.pending == 4
    for text in "efghijkl":
        assert await revisions(server, text) == {"stable"}
    held.released.set()
    assert {(await each)[0] for each in waiting} == {"canary"}
    assert (counters.report()["canary"].requests, counters.report()["canary"].errors) == (4, 0)
    assert await revisions(server, "m") == {"canary"}, "its places are free again"


async def test_a_canary_may_have_the_only_place() -> None:
    server, _ = beside(respond, max_queued_requests=1)
    assert await revisions(server, "a") == {"canary"}


async def test_where_no_other_revision_can_answer_everybody_goes_on_to_wait() -> None:
    held = HeldRevision()
    server = Predictor(Counters(), lambda revision, texts: None)
    server.configure(config(request_timeout_s=2), [Target("canary", 100, False, held.send)])
    asyncio.get_running_loop().call_later(0.7, held.released.set)
    assert await revisions(server, "a") == {"canary"}, "after a third of the time"


async def test_a_canary_that_hung_is_waited_for_once_the_old_revision_has_left() -> None:
    held = HeldRevision()
    server, _ = beside(held.send)
    assert await revisions(server, "a") == {"stable"}
    server.configure(config(request_timeout_s=1), [Target("canary", 100, False, held.send)])
    asked = asyncio.create_task(server.predict(["b"]))
    await asyncio.sleep(0.01)
    assert not asked.done()
    held.released.set()
    assert (await asked)[0] == "canary"


async def test_copies_for_a_canary_that_hangs_are_its_failures_and_are_not_sent() -> None:
    held = HeldRevision()
    mirror = Mirror(revision="canary", percent=100)
    server, counters = beside(held.send, weight=0, mirror=mirror)
    for text in ("a", "b"):
        assert await revisions(server, text) == {"stable"}
        while server._copies:
            await asyncio.wait(server._copies)
    assert held.batches == [["a"]]
    counts = counters.report()["canary"]
    assert (counts.requests, counts.errors, counts.compared) == (2, 2, 0)


async def test_a_client_that_leaves_says_nothing_about_the_canary() -> None:
    held = HeldRevision()
    server, counters = beside(held.send, request_timeout_s=60)
    asked = asyncio.create_task(server.predict(["a"]))
    await held.started.wait()
    asked.cancel()
    await asyncio.wait([asked])
    assert (counters.report()["canary"].requests, counters.report()["canary"].errors) == (1, 0)
    assert server.pending == 0
