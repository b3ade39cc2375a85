"""From a request's texts to its answer: admission, chunks, batches that survive their members, weights."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from luthier_api.documents import AdapterConfig, Mirror, Route
from luthier_serving.answers import Answer, Row, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.observe.observer import Observer
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.predictor import Predictor, Target
from luthier_serving.replica.protocols.interface import check_model
from luthier_serving.replica.revision_queue import SendBatch
from support.serving.doubles import HeldRevision, answer, config, predictor, respond, row, targets

pytestmark = pytest.mark.unit


async def test_more_requests_than_may_wait_are_rejected_and_room_is_given_back() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_queued_requests=3)
    waiting = [asyncio.create_task(server.predict(["a"])) for _ in range(3)]
    await held.started.wait()
    async with asyncio.timeout(10):
        with pytest.raises(Overloaded, match="3 requests are already queued"):
            await server.predict(["b"])
    assert server.pending == 3
    held.released.set()
    await asyncio.gather(*waiting)
    assert server.pending == 0
    assert (await server.predict(["c"]))[0] == "rev-1"


async def test_a_list_takes_a_place_for_each_batch_it_fills_and_gives_all_of_them_back() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_queued_requests=8, max_batch_texts=2)
    texts = [f"text {number}" for number in range(7)]
    asked = asyncio.create_task(server.predict(texts))
    await held.started.wait()
    assert server.pending == 4
    held.released.set()
    assert (await asked)[1].rows == [row(text) for text in texts]
    # More lists, one after the other, than there would be places if one were lost each time.
    for _ in range(10):
        await server.predict(texts)
        assert server.pending == 0


async def test_a_list_that_fails_or_whose_client_disconnects_gives_all_its_places_back() -> None:
    async def fail(texts: list[Text]) -> Answer:
        raise Unavailable("The revision is gone.")

    server = predictor(fail, max_batch_texts=1)
    with pytest.raises(Unavailable):
        await server.predict(["a", "b", "c"])
    assert server.pending == 0
    server = predictor(HeldRevision().send, max_batch_texts=1)
    asked = asyncio.create_task(server.predict(["a", "b", "c"]))
    await asyncio.sleep(0)
    assert server.pending == 3
    asked.cancel()
    await asyncio.wait([asked])
    assert server.pending == 0


async def test_no_batch_holds_more_texts_than_allowed_and_every_batch_is_counted() -> None:
    held, counted = HeldRevision(), []
    server = Predictor(Counters(), lambda revision, texts: counted.append((revision, texts)))
    server.configure(config(max_batch_texts=3), targets(held.send, config(max_batch_texts=3)))
    held.released.set()
    await server.predict(list("abcdefg"))
    assert [len(batch) for batch in held.batches] == [3, 3, 1]
    assert counted == [("rev-1", 3), ("rev-1", 3), ("rev-1", 1)]


async def test_requests_that_arrive_together_leave_together() -> None:
    held = HeldRevision()
    held.released.set()
    server = predictor(held.send)
    answers = await asyncio.gather(*(server.predict([text]) for text in "abc"))
    assert held.batches == [["a", "b", "c"]]
    assert [each.rows for _, each in answers] == [[row(text)] for text in "abc"]


async def test_requests_that_wait_leave_when_the_batch_before_them_returns() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_batch_wait_ms=3_600_000)
    first = asyncio.create_task(server.predict(["first"]))
    await held.started.wait()
    second = asyncio.create_task(server.predict(["second"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert held.batches == [["first"]]
    held.released.set()
    async with asyncio.timeout(10):
        assert [(await each)[1].rows for each in (first, second)] == [[row("first")], [row("second")]]


async def test_requests_wait_for_a_busy_replica_only_for_as_long_as_they_may() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_batch_wait_ms=20)
    tasks = [asyncio.create_task(server.predict(["first"]))]
    await held.started.wait()
    held.started.clear()
    tasks.append(asyncio.create_task(server.predict(["second"])))
    async with asyncio.timeout(10):
        await held.started.wait()
    assert held.batches == [["first"], ["second"]]
    held.released.set()
    await asyncio.gather(*tasks)


async def test_as_many_batches_are_in_flight_as_replicas_have_answered() -> None:
    held, replicas = HeldRevision(), ["replica-1", "replica-2"]

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        return (await held.send(texts))._replace(replica=replicas[len(held.batches) % 2])

    server = predictor(send, max_batch_wait_ms=3_600_000)
    held.released.set()
    await server.predict(["a"])
    await server.predict(["b"])
    held.released.clear()
    tasks = []
    for text in "cde":
        tasks.append(asyncio.create_task(server.predict([text])))
        for _ in range(5):
            await asyncio.sleep(0)
    assert held.batches == [["a"], ["b"], ["c"], ["d"]]
    held.released.set()
    await asyncio.gather(*tasks)


async def test_a_client_that_disconnects_while_it_waits_takes_only_its_own_text_along() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_batch_wait_ms=3_600_000)
    first = asyncio.create_task(server.predict(["in flight"]))
    await held.started.wait()
    waiting = [asyncio.create_task(server.predict([text])) for text in ("stays", "leaves", "stays too")]
    await asyncio.sleep(0)
    waiting[1].cancel()
    held.released.set()
    answers = await asyncio.gather(first, waiting[0], waiting[2])
    assert held.batches == [["in flight"], ["stays", "stays too"]]
    assert [each.rows for _, each in answers] == [[row(text)] for text in ("in flight", "stays", "stays too")]
    assert server.pending == 0


@pytest.mark.parametrize("leaves", [0, 1, 2])
async def test_a_client_that_disconnects_while_its_batch_is_computed_does_not_disturb_the_others(leaves: int) -> None:
    held = HeldRevision()
    server = predictor(held.send)
    requests = [["first"], ["second", "second too"], ["third"]]
    tasks = [asyncio.create_task(server.predict(texts)) for texts in requests]
    await held.started.wait()
    tasks[leaves].cancel()
    await asyncio.wait([tasks[leaves]])
    held.released.set()
    for index, task in enumerate(tasks):
        if index != leaves:
            assert (await task)[1].rows == [row(text) for text in requests[index]]
    assert server.pending == 0


async def test_a_batch_that_fails_fails_for_everybody_in_it_and_the_next_is_sent() -> None:
    failures = [Unavailable("The revision is gone.")]

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        if failures:
            raise failures.pop()
        return answer(texts)

    server = predictor(send, max_batch_wait_ms=3_600_000)
    results = await asyncio.gather(server.predict(["a"]), server.predict(["b"]), return_exceptions=True)
    assert [str(result) for result in results] == ["The revision is gone."] * 2
    async with asyncio.timeout(10):
        assert (await server.predict(["c"]))[1].rows == [row("c")]


async def test_a_batch_that_fails_fails_for_the_others_also_after_one_client_disconnected() -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        started.set()
        await released.wait()
        raise Unavailable("The revision is gone.")

    server = predictor(send)
    leaves, stays = (asyncio.create_task(server.predict([text])) for text in ("leaves", "stays"))
    await started.wait()
    leaves.cancel()
    await asyncio.wait([leaves])
    released.set()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="The revision is gone"):
            await stays


async def test_an_answer_that_takes_too_long_is_a_504_and_frees_its_places() -> None:
    server = predictor(HeldRevision().send, max_queued_requests=3, max_batch_texts=1)
    server.config = server.config.model_copy(update={"request_timeout_s": 0.01})
    for _ in range(3):
        async with asyncio.timeout(10):
            with pytest.raises(RequestError) as failure:
                await server.predict(["a", "b", "c"])
        assert failure.value.status == 504 and server.pending == 0


@pytest.mark.parametrize(("patient", "errors"), [(False, 1), (True, 0)])
async def test_a_revision_that_does_not_answer_in_time_has_failed_and_one_whose_client_left_has_not(
    patient: bool, errors: int
) -> None:
    counters = Counters()
    server = Predictor(counters, lambda revision, texts: None)
    server.configure(config(), targets(HeldRevision().send, config()))
    limit_s = 3600 if patient else 0.02
    server.config = server.config.model_copy(update={"request_timeout_s": limit_s})
    asked = asyncio.create_task(server.predict(["a"]))
    if patient:
        await asyncio.sleep(0.02)
        asked.cancel()
    with pytest.raises((RequestError, asyncio.CancelledError)):
        await asked
    counts = counters.report()["rev-1"]
    assert (counts.requests, counts.errors) == (1, errors)


def by_name(released: asyncio.Event, weights: dict[str, int], local: str = "") -> list[Target]:
    """Return targets each of which answers with its own name for a version."""

    def send_to(revision: str) -> SendBatch:
        async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
            await released.wait()
            return answer(texts, version=revision)

        return send

    return [Target(name, weight, name == local, send_to(name)) for name, weight in weights.items()]


async def test_new_weights_apply_at_once_and_requests_in_flight_are_answered() -> None:
    released = asyncio.Event()
    server = Predictor(Counters(), lambda revision, texts: None)
    server.configure(config(), by_name(released, {"old": 100}))
    in_flight = asyncio.create_task(server.predict(["a"]))
    await asyncio.sleep(0)
    server.configure(config(), by_name(released, {"new": 100}))
    released.set()
    assert (await server.predict(["b"]))[1].model.version == "new"
    revision, old_answer = await in_flight
    assert (revision, old_answer.model.version) == ("old", "old")


async def test_a_revision_that_stays_keeps_its_queue_and_takes_the_new_limits() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_batch_wait_ms=3_600_000)
    first = asyncio.create_task(server.predict(["first"]))
    await held.started.wait()
    waits = asyncio.create_task(server.predict(["waits"]))
    await asyncio.sleep(0)
    new = config(max_texts=7, max_body_bytes=8, max_text_characters=9)
    server.configure(new, targets(held.send, new))
    assert (server.limits.texts, server.limits.body_bytes, server.limits.text_characters) == (7, 8, 9)
    held.released.set()
    await asyncio.gather(first, waits)
    assert held.batches == [["first"], ["waits"]]


async def test_new_weights_let_no_second_batch_into_this_process() -> None:
    held = HeldRevision()
    server = predictor(held.send, local="rev-1")
    asked = [asyncio.create_task(server.predict(["first"]))]
    await held.started.wait()
    server.configure(config(), targets(held.send, config(), "rev-1"))
    asked.append(asyncio.create_task(server.predict(["second"])))
    await asyncio.sleep(0.01)
    assert held.batches == [["first"]], "one is being computed"
    held.released.set()
    await asyncio.gather(*asked)
    assert held.batches == [["first"], ["second"]]


async def test_new_batch_limits_apply_to_a_queue_that_is_open() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_batch_texts=2)
    server.configure(config(max_batch_texts=4), targets(held.send, config()))
    held.released.set()
    await server.predict(list("abcd"))
    await asyncio.gather(*(server.predict([text]) for text in "efgh"))
    assert [len(batch) for batch in held.batches] == [4, 4]


async def test_without_a_configuration_or_weight_the_answer_is_that_no_model_is_served() -> None:
    server = Predictor(Counters(), lambda revision, texts: None)
    with pytest.raises(Unavailable, match="No model is served yet"):
        await server.predict(["a"])
    idle = config(routes=[Route(revision="rev-1", version="v1", weight=0)])
    server.configure(idle, targets(respond, idle))
    assert not server.ready
    with pytest.raises(Unavailable, match="No model is served yet"):
        await server.predict(["a"])
    assert server.pending == 0


async def test_each_replica_queues_its_share_of_the_deployments_places() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_queued_requests=9, replicas=4)
    waiting = [asyncio.create_task(server.predict(["a"])) for _ in range(3)]
    await held.started.wait()
    with pytest.raises(Overloaded, match="3 requests are already queued"):
        await server.predict(["b"])
    held.released.set()
    await asyncio.gather(*waiting)


async def test_a_single_text_does_not_wait_behind_a_list_of_a_thousand() -> None:
    """What runs when it comes is finished first, then it has its turn beside the list's next part."""
    batches: list[list[Text]] = []

    async def send(texts: list[Text], adapter: str | None = None, /) -> Answer:
        batches.append(texts)
        await asyncio.sleep(0)
        return answer(texts)

    server = predictor(send, local="rev-1")
    lists = [asyncio.create_task(server.predict([f"list {n}, text {i}" for i in range(200)])) for n in range(3)]
    while len(batches) < 2:
        await asyncio.sleep(0)
    _, found = await server.predict(["single"])
    assert found.rows == [row("single")]
    assert next(number for number, batch in enumerate(batches) if "single" in batch) <= 3
    for n, each in enumerate(lists):
        assert (await each)[1].rows == [row(f"list {n}, text {i}") for i in range(200)]
    assert server.pending == 0


async def test_lists_leave_places_for_single_texts() -> None:
    held = HeldRevision()
    server = predictor(held.send, max_queued_requests=8, max_batch_texts=2)
    lists = [asyncio.create_task(server.predict(["a", "b", "c", "d"])) for _ in range(3)]
    await held.started.wait()
    assert server.pending == 6
    with pytest.raises(Overloaded, match="Lists of texts fill their share"):
        await server.predict(["a", "b", "c", "d"])
    single = asyncio.create_task(server.predict(["one"]))
    held.released.set()
    await asyncio.gather(single, *lists)


async def test_the_revision_in_this_process_computes_one_batch_at_a_time() -> None:
    held = HeldRevision()
    server = predictor(held.send, local="rev-1", max_batch_wait_ms=0)
    tasks = [asyncio.create_task(server.predict(["first"]))]
    await held.started.wait()
    tasks += [asyncio.create_task(server.predict([text])) for text in "abc"]
    await asyncio.sleep(0.01)
    assert held.batches == [["first"]]
    held.released.set()
    await asyncio.gather(*tasks)
    assert held.batches == [["first"], ["a", "b", "c"]]


WEIGHTS = {"stable": 50, "canary": 50}


def split(fails: Exception | None = None, rows: Row | None = None, **changes: Any) -> tuple[Predictor, Counters]:
    """Return a predictor with a stable revision of its own and a canary that fails, or answers these rows."""

    async def stable(texts: list[Text]) -> Answer:
        return answer(texts, version="stable")

    async def canary(texts: list[Text]) -> Answer:
        if fails:
            raise fails
        found = answer(texts, version="canary")
        return found._replace(rows=[rows] * len(texts)) if rows else found

    counters = Counters()
    made = Predictor(counters, lambda revision, texts: None)
    weights = changes.pop("weights", WEIGHTS)
    made.configure(
        config(**changes),
        [Target("stable", weights["stable"], True, stable), Target("canary", weights["canary"], False, canary)],
    )
    return made, counters


@pytest.mark.parametrize(
    "bad",
    [
        {"fails": Unavailable("The canary is gone.")},
        {"fails": RequestError("The model failed on this request; the server's log says why.")},
        {"fails": Overloaded("Too many batches wait for the canary.")},
        {"rows": Row([], "The model failed on this text.")},
    ],
    ids=str,
)
async def test_what_a_canary_fails_the_stable_revision_answers_and_the_failure_is_counted(bad: dict[str, Any]) -> None:
    server, counters = split(**bad)
    answers = [await server.predict(["a"]) for _ in range(10)]
    assert [(revision, found.model.version) for revision, found in answers] == [("stable", "stable")] * 10
    report = counters.report()
    assert (report["canary"].requests, report["canary"].errors) == (5, 5)
    assert (report["stable"].requests, report["stable"].errors) == (10, 0)


async def test_what_a_client_does_wrong_is_no_failure_of_the_revision() -> None:
    wrong = Row([], "The model reads pairs.", invalid_input=True)
    server, counters = split(rows=wrong, weights={"stable": 0, "canary": 100})
    revision, found = await server.predict(["a"])
    assert revision == "canary" and found.rows[0].invalid_input
    assert counters.report()["canary"].errors == 0


async def test_a_stable_revision_that_fails_says_so() -> None:
    async def gone(texts: list[Text]) -> Answer:
        raise Unavailable("It is gone.")

    server = predictor(gone, local="rev-1")
    with pytest.raises(Unavailable, match="It is gone"):
        await server.predict(["a"])


async def test_one_user_meets_one_revision_in_every_replica() -> None:
    replicas = [split(sticky_header="X-User")[0] for _ in range(2)]
    seen = set()
    for user in range(40):
        found = {(await server.predict(["a"], {"x-user": f"user-{user}"}))[0] for server in replicas for _ in range(3)}
        assert len(found) == 1
        seen |= found
    assert seen == {"stable", "canary"}


async def test_a_tester_may_name_the_revision_only_where_that_is_allowed() -> None:
    weights = {"stable": 100, "canary": 0}
    server, _ = split(header_routing=True, weights=weights)
    assert (await server.predict(["a"], {"x-luthier-revision": "canary"}))[0] == "canary"
    with pytest.raises(RequestError, match="There is no revision 'other' here") as error:
        await server.predict(["a"], {"x-luthier-revision": "other"})
    assert error.value.status == 422
    closed, _ = split(weights=weights)
    assert (await closed.predict(["a"], {"x-luthier-revision": "canary"}))[0] == "stable"


async def copies(server: Predictor) -> None:
    while server._copies:
        await asyncio.wait(server._copies)


async def test_a_mirror_copies_its_share_and_compares_and_nobody_waits_for_it() -> None:
    mirror = Mirror(revision="canary", percent=25)
    server, counters = split(
        rows=Row([0.9, 0.1]), weights={"stable": 100, "canary": 0}, mirror=mirror, max_queued_requests=100
    )
    for _ in range(40):
        assert (await server.predict(["a"]))[0] == "stable"
    await copies(server)
    counts = counters.report()["canary"]
    assert (counts.requests, counts.compared, counts.agreement) == (10, 10, 0.0)
    assert counts.flips == {"positive -> negative": 10} and counts.confidence_shift > 0
    assert counters.report()["stable"].requests == 40


async def test_a_mirror_that_hangs_holds_nobody_up_and_is_bounded() -> None:
    held = HeldRevision()
    mirror = Mirror(revision="canary", percent=100, max_pending=3)
    counters = Counters()
    server = Predictor(counters, lambda revision, texts: None)
    server.configure(
        config(mirror=mirror), [Target("stable", 100, True, respond), Target("canary", 0, False, held.send)]
    )
    async with asyncio.timeout(10):
        for _ in range(10):
            await server.predict(["a"])
    assert len(server._copies) == 3 and counters.report()["canary"].dropped == 7
    held.released.set()
    await copies(server)
    assert counters.report()["canary"].agreement == 3.0


async def test_a_mirror_gives_way_while_a_quarter_of_the_places_is_taken() -> None:
    held, counters = HeldRevision(), Counters()
    server = Predictor(counters, lambda revision, texts: None)
    mirror = Mirror(revision="canary", percent=100)
    server.configure(
        config(mirror=mirror, max_queued_requests=8, header_routing=True),
        [Target("stable", 100, True, respond), Target("canary", 0, False, held.send)],
    )
    busy = [asyncio.create_task(server.predict(["a"], {"x-luthier-revision": "canary"})) for _ in range(2)]
    await held.started.wait()
    await server.predict(["b"])
    assert counters.report()["canary"].dropped == 1, "with this request, three of eight places were taken"
    held.released.set()
    await asyncio.gather(*busy)
    await server.predict(["c"])
    await copies(server)
    assert (counters.report()["canary"].dropped, counters.report()["canary"].compared) == (1, 1)


async def test_only_answers_of_the_stable_revision_are_copied_and_to_a_canary_that_is_there() -> None:
    mirror = Mirror(revision="canary", percent=100)
    server, counters = split(mirror=mirror, weights={"stable": 0, "canary": 100})
    await server.predict(["a"])
    await copies(server)
    assert (counters.report()["canary"].requests, counters.report()["canary"].compared) == (1, 0)
    server.configure(config(mirror=mirror), by_name(held_open(), {"stable": 100}, local="stable"))
    assert (await server.predict(["a"]))[0] == "stable"


async def test_a_copy_that_the_canary_fails_is_an_error_and_is_not_compared() -> None:
    mirror = Mirror(revision="canary", percent=100)
    server, counters = split(Unavailable("It is gone."), mirror=mirror, weights={"stable": 100, "canary": 0})
    assert (await server.predict(["a"]))[0] == "stable"
    await copies(server)
    counts = counters.report()["canary"]
    assert (counts.requests, counts.errors, counts.compared) == (1, 1, 0)


async def test_a_list_of_which_a_canary_fails_one_text_is_answered_by_the_stable_revision() -> None:
    async def poisoned(texts: list[Text]) -> Answer:
        return answer(["poison" if text == "b" else text for text in texts], version="canary")

    counters = Counters()
    server = Predictor(counters, lambda revision, texts: None)
    server.configure(config(), [Target("stable", 0, True, respond), Target("canary", 100, False, poisoned)])
    revision, found = await server.predict(["a", "b", "c"])
    assert revision == "stable" and all(row.error is None for row in found.rows)
    assert counters.report()["canary"].errors == 1


async def test_places_are_shared_by_the_replicas_and_rounded_up() -> None:
    assert [predictor(respond, max_queued_requests=9, replicas=n).max_pending for n in (1, 2, 4, 20)] == [9, 5, 3, 1]


def held_open() -> asyncio.Event:
    """Return an event that holds nothing back."""
    found = asyncio.Event()
    found.set()
    return found


async def test_a_revision_that_leaves_this_process_answers_what_it_has_first() -> None:
    held = HeldRevision()
    server = predictor(held.send, local="rev-1")
    tasks = [asyncio.create_task(server.predict([text])) for text in "ab"]
    await held.started.wait()
    tasks.append(asyncio.create_task(server.predict(["waits"])))
    await asyncio.sleep(0)
    server.configure(config(), by_name(held.released, {"rev-2": 100}))
    drained = asyncio.create_task(server.drain("rev-1"))
    await asyncio.sleep(0.01)
    assert not drained.done()
    held.released.set()
    await drained
    assert [len(batch) for batch in held.batches] == [2, 1]
    await asyncio.gather(*tasks)


async def test_a_new_window_counts_from_zero() -> None:
    server, counters = split(window="rev-b/0")
    await server.predict(["a"])
    server.configure(config(window="rev-b/0"), by_name(asyncio.Event(), {"stable": 100}))
    assert counters.report()
    server.configure(config(window="rev-b/1"), by_name(asyncio.Event(), {"stable": 100}))
    assert counters.report() == {} and counters.window == "rev-b/1"


FILMS = AdapterConfig(name="films", uri="s3://m/films/versions/v", version="v", digest="sha256:" + "0" * 64)


async def test_requests_for_an_adapter_share_batches_with_each_other_only() -> None:
    held = HeldRevision()
    server = predictor(held.send, local="rev-1", adapters=[FILMS])
    first = asyncio.create_task(server.predict(["first"]))
    await held.started.wait()
    rest = [asyncio.create_task(server.predict([f"{n}"], adapter="films" if n % 2 else None)) for n in range(4)]
    await asyncio.sleep(0)
    held.released.set()
    await asyncio.gather(first, *rest)
    assert list(zip(held.batches, held.adapters, strict=True)) == [
        (["first"], None),
        (["0", "2"], None),
        (["1", "3"], "films"),
    ]


@pytest.mark.parametrize(("model", "adapter"), [("reviews", None), ("reviews:films", "films")])
def test_the_name_of_a_model_chooses_an_adapter(model: str, adapter: str | None) -> None:
    assert check_model(model, None, predictor(respond, adapters=[FILMS]).served) == adapter


@pytest.mark.parametrize("model", ["films", "reviews:books", "reviews:", "other:films", "reviews:films:x"])
def test_a_model_that_is_not_there_is_answered_with_those_that_are(model: str) -> None:
    with pytest.raises(RequestError, match="this server has 'reviews' and 'reviews:films'") as error:
        check_model(model, None, predictor(respond, adapters=[FILMS]).served)
    assert error.value.status == 404


def test_an_adapter_has_a_version_of_its_own() -> None:
    served = predictor(respond, adapters=[FILMS]).served
    assert check_model("reviews:films", "v", served) == "films"
    with pytest.raises(RequestError, match="'reviews:films' has no version 'v1' in service; in service: v"):
        check_model("reviews:films", "v1", served)
    with pytest.raises(RequestError, match="'reviews' has no version 'v' in service; in service: v1"):
        check_model("reviews", "v", served)


async def test_drift_is_measured_of_the_model_alone_and_not_of_its_adapters() -> None:
    counted: list[str] = []
    observer = Observer()
    observer.drift = cast(Any, SimpleNamespace(add=lambda revision, answer: counted.append(answer.model.version)))
    made = Predictor(Counters(), lambda revision, texts: None, observer)
    made.configure(config(adapters=[FILMS]), targets(respond, config(adapters=[FILMS])))
    await made.predict(["a"], adapter="films")
    assert counted == []
    await made.predict(["a"])
    assert counted == ["v1"]


async def test_what_a_canary_fails_of_an_adapter_the_stable_revision_answers_with_the_same_adapter() -> None:
    asked: list[tuple[str, str | None]] = []

    async def broken(texts: list[Text], adapter: str | None = None, /) -> Answer:
        asked.append(("canary", adapter))
        raise Unavailable("The adapter films is not loaded yet.")

    async def stable(texts: list[Text], adapter: str | None = None, /) -> Answer:
        asked.append(("stable", adapter))
        return answer(texts)

    server = Predictor(Counters(), lambda revision, texts: None)
    server.configure(
        config(adapters=[FILMS]), [Target("stable", 0, True, stable), Target("canary", 100, False, broken)]
    )
    assert (await server.predict(["a"], adapter="films"))[0] == "stable"
    assert asked == [("canary", "films"), ("stable", "films")]
