"""From a request's texts to its answer: admission, chunks, batches that survive their members, weights."""

import asyncio

import pytest

from luthier_api.documents import Route
from luthier_serving.answers import Answer, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.revision_queue import SendBatch
from support.serving.doubles import HeldRevision, answer, config, predictor, respond, row

pytestmark = pytest.mark.unit


async def test_more_requests_than_may_wait_are_rejected_and_room_is_given_back() -> None:
    held = HeldRevision()
    front = predictor(held.send, max_queued_requests=3)
    waiting = [asyncio.create_task(front.predict(["a"])) for _ in range(3)]
    await held.started.wait()
    async with asyncio.timeout(10):
        with pytest.raises(Overloaded, match="3 requests are already queued"):
            await front.predict(["b"])
    assert front.pending == 3
    held.released.set()
    await asyncio.gather(*waiting)
    assert front.pending == 0
    assert (await front.predict(["c"]))[0] == "rev-1"


async def test_a_list_takes_a_place_for_each_batch_it_fills_and_gives_all_of_them_back() -> None:
    held = HeldRevision()
    front = predictor(held.send, max_queued_requests=8, max_batch_texts=2)
    texts = [f"text {number}" for number in range(7)]
    asked = asyncio.create_task(front.predict(texts))
    await held.started.wait()
    assert front.pending == 4
    held.released.set()
    assert (await asked)[1].rows == [row(text) for text in texts]
    # More lists, one after the other, than there would be places if one were lost each time.
    for _ in range(10):
        await front.predict(texts)
        assert front.pending == 0


async def test_a_list_that_fails_or_whose_client_disconnects_gives_all_its_places_back() -> None:
    async def fail(texts: list[Text]) -> Answer:
        raise Unavailable("The revision is gone.")

    front = predictor(fail, max_batch_texts=1)
    with pytest.raises(Unavailable):
        await front.predict(["a", "b", "c"])
    assert front.pending == 0
    front = predictor(HeldRevision().send, max_batch_texts=1)
    asked = asyncio.create_task(front.predict(["a", "b", "c"]))
    await asyncio.sleep(0)
    assert front.pending == 3
    asked.cancel()
    await asyncio.wait([asked])
    assert front.pending == 0


async def test_no_batch_holds_more_texts_than_allowed_and_every_batch_is_counted() -> None:
    held, counted = HeldRevision(), []
    front = Predictor(lambda revision: held.send, lambda revision, texts: counted.append((revision, texts)))
    front.configure(config(max_batch_texts=3))
    held.released.set()
    await front.predict(list("abcdefg"))
    assert [len(batch) for batch in held.batches] == [3, 3, 1]
    assert counted == [("rev-1", 3), ("rev-1", 3), ("rev-1", 1)]


async def test_requests_that_arrive_together_leave_together() -> None:
    held = HeldRevision()
    held.released.set()
    front = predictor(held.send)
    answers = await asyncio.gather(*(front.predict([text]) for text in "abc"))
    assert held.batches == [["a", "b", "c"]]
    assert [each.rows for _, each in answers] == [[row(text)] for text in "abc"]


async def test_requests_that_wait_leave_when_the_batch_before_them_returns() -> None:
    held = HeldRevision()
    front = predictor(held.send, max_batch_wait_ms=3_600_000)
    first = asyncio.create_task(front.predict(["first"]))
    await held.started.wait()
    second = asyncio.create_task(front.predict(["second"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert held.batches == [["first"]]
    held.released.set()
    async with asyncio.timeout(10):
        assert [(await each)[1].rows for each in (first, second)] == [[row("first")], [row("second")]]


async def test_requests_wait_for_a_busy_replica_only_for_as_long_as_they_may() -> None:
    held = HeldRevision()
    front = predictor(held.send, max_batch_wait_ms=20)
    tasks = [asyncio.create_task(front.predict(["first"]))]
    await held.started.wait()
    held.started.clear()
    tasks.append(asyncio.create_task(front.predict(["second"])))
    async with asyncio.timeout(10):
        await held.started.wait()
    assert held.batches == [["first"], ["second"]]
    held.released.set()
    await asyncio.gather(*tasks)


async def test_as_many_batches_are_in_flight_as_replicas_have_answered() -> None:
    held, replicas = HeldRevision(), ["replica-1", "replica-2"]

    async def send(texts: list[Text]) -> Answer:
        return (await held.send(texts))._replace(replica=replicas[len(held.batches) % 2])

    front = predictor(send, max_batch_wait_ms=3_600_000)
    held.released.set()
    await front.predict(["a"])
    await front.predict(["b"])
    held.released.clear()
    tasks = []
    for text in "cde":
        tasks.append(asyncio.create_task(front.predict([text])))
        for _ in range(5):
            await asyncio.sleep(0)
    assert held.batches == [["a"], ["b"], ["c"], ["d"]]
    held.released.set()
    await asyncio.gather(*tasks)


async def test_a_client_that_disconnects_while_it_waits_takes_only_its_own_text_along() -> None:
    held = HeldRevision()
    front = predictor(held.send, max_batch_wait_ms=3_600_000)
    first = asyncio.create_task(front.predict(["in flight"]))
    await held.started.wait()
    waiting = [asyncio.create_task(front.predict([text])) for text in ("stays", "leaves", "stays too")]
    await asyncio.sleep(0)
    waiting[1].cancel()
    held.released.set()
    answers = await asyncio.gather(first, waiting[0], waiting[2])
    assert held.batches == [["in flight"], ["stays", "stays too"]]
    assert [each.rows for _, each in answers] == [[row(text)] for text in ("in flight", "stays", "stays too")]
    assert front.pending == 0


@pytest.mark.parametrize("leaves", [0, 1, 2])
async def test_a_client_that_disconnects_while_its_batch_is_computed_does_not_disturb_the_others(leaves: int) -> None:
    held = HeldRevision()
    front = predictor(held.send)
    requests = [["first"], ["second", "second too"], ["third"]]
    tasks = [asyncio.create_task(front.predict(texts)) for texts in requests]
    await held.started.wait()
    tasks[leaves].cancel()
    await asyncio.wait([tasks[leaves]])
    held.released.set()
    for index, task in enumerate(tasks):
        if index != leaves:
            assert (await task)[1].rows == [row(text) for text in requests[index]]
    assert front.pending == 0


async def test_a_batch_that_fails_fails_for_everybody_in_it_and_the_next_is_sent() -> None:
    failures = [Unavailable("The revision is gone.")]

    async def send(texts: list[Text]) -> Answer:
        if failures:
            raise failures.pop()
        return answer(texts)

    front = predictor(send, max_batch_wait_ms=3_600_000)
    results = await asyncio.gather(front.predict(["a"]), front.predict(["b"]), return_exceptions=True)
    assert [str(result) for result in results] == ["The revision is gone."] * 2
    async with asyncio.timeout(10):
        assert (await front.predict(["c"]))[1].rows == [row("c")]


async def test_a_batch_that_fails_fails_for_the_others_also_after_one_client_disconnected() -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def send(texts: list[Text]) -> Answer:
        started.set()
        await released.wait()
        raise Unavailable("The revision is gone.")

    front = predictor(send)
    leaves, stays = (asyncio.create_task(front.predict([text])) for text in ("leaves", "stays"))
    await started.wait()
    leaves.cancel()
    await asyncio.wait([leaves])
    released.set()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="The revision is gone"):
            await stays


async def test_an_answer_that_takes_too_long_is_a_504_and_frees_its_places() -> None:
    front = predictor(HeldRevision().send, max_queued_requests=3, max_batch_texts=1)
    front.config = front.config.model_copy(update={"request_timeout_s": 0.01})
    for _ in range(3):
        async with asyncio.timeout(10):
            with pytest.raises(RequestError) as failure:
                await front.predict(["a", "b", "c"])
        assert failure.value.status == 504 and front.pending == 0


def connect_by_name(released: asyncio.Event, connected: list[str]) -> Predictor:
    """Return a predictor each of whose revisions answers with its own name for a version."""

    def connect(revision: str) -> SendBatch:
        connected.append(revision)

        async def send(texts: list[Text]) -> Answer:
            await released.wait()
            return answer(texts, version=revision)

        return send

    return Predictor(connect, lambda revision, texts: None)


async def test_new_weights_apply_at_once_and_requests_in_flight_are_answered() -> None:
    released, connected = asyncio.Event(), []
    front = connect_by_name(released, connected)
    front.configure(config(routes=[Route(revision="old", version="1", weight=100)]))
    in_flight = asyncio.create_task(front.predict(["a"]))
    await asyncio.sleep(0)
    front.configure(config(routes=[Route(revision="new", version="2", weight=100)]))
    released.set()
    assert (await front.predict(["b"]))[1].model.version == "new"
    revision, old_answer = await in_flight
    assert (revision, old_answer.model.version) == ("old", "old")


async def test_a_revision_that_stays_keeps_its_queue_and_takes_the_new_limits() -> None:
    released, connected = asyncio.Event(), []
    released.set()
    front = connect_by_name(released, connected)
    for weight in (100, 50):
        routes = [Route(revision="one", version="1", weight=weight), Route(revision="two", version="2", weight=50)]
        front.configure(config(routes=routes, max_texts=weight, max_body_bytes=weight, max_text_characters=weight))
    assert connected == ["one", "two"]
    assert (front.limits.texts, front.limits.body_bytes, front.limits.text_characters) == (50, 50, 50)
    versions = [(await front.predict(["a"]))[1].model.version for _ in range(4)]
    assert sorted(versions) == ["one", "one", "two", "two"]


async def test_new_batch_limits_apply_to_a_queue_that_is_open() -> None:
    held = HeldRevision()
    front = predictor(held.send, max_batch_texts=2)
    front.configure(config(max_batch_texts=4))
    held.released.set()
    await front.predict(list("abcd"))
    await asyncio.gather(*(front.predict([text]) for text in "efgh"))
    assert [len(batch) for batch in held.batches] == [4, 4]


async def test_without_a_configuration_or_weight_the_answer_is_that_no_model_is_served() -> None:
    front = Predictor(lambda revision: respond, lambda revision, texts: None)
    with pytest.raises(Unavailable, match="No model is served yet"):
        await front.predict(["a"])
    front.configure(config(routes=[Route(revision="rev-1", version="v1", weight=0)]))
    with pytest.raises(Unavailable, match="No model is served yet"):
        await front.predict(["a"])
    assert front.pending == 0
