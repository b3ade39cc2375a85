"""What a replica tells of its requests: stages, errors by kind, the log; and that none of it can fail one."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from luthier_api.documents import Mirror, Route
from luthier_serving.answers import Answer, Row, Text, Work
from luthier_serving.errors import Overloaded, Unavailable
from luthier_serving.observe.drift import DriftWindows
from luthier_serving.observe.log_lines import LoggedRequest
from luthier_serving.observe.observer import Observer
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.revision_queue import SendBatch
from support.serving.doubles import MODEL, HeldRevision, answer, config, respond, targets

pytestmark = pytest.mark.unit


class Recorded:
    """The metrics, remembered."""

    def __init__(self) -> None:
        self.totals: list[tuple[str, float]] = []
        self.errors: list[tuple[str, str]] = []
        self.waits: list[float] = []
        self.work: list[Work | None] = []

    def observe_total(self, revision: str, seconds: float) -> None:
        self.totals.append((revision, seconds))

    def observe_error(self, kind: str, revision: str) -> None:
        self.errors.append((kind, revision))

    def observe_computed(self, revision: str, waits: Sequence[float], work: Work | None) -> None:
        self.waits += waits
        self.work.append(work)


class Log:
    """A request log that keeps what it is given."""

    def __init__(self, *, texts: bool = False) -> None:
        self.config = type("Config", (), {"texts": texts})
        self.requests: list[LoggedRequest] = []
        self.busy: list[bool] = []

    def wants(self, *, busy: bool) -> bool:
        self.busy.append(busy)
        return True

    def add(self, request: LoggedRequest) -> None:
        self.requests.append(request)


def observed(send: SendBatch, local: str = "", **changes: Any) -> tuple[Predictor, Observer, Recorded]:
    recorded = Recorded()
    observer = Observer(recorded)
    made = Predictor(Counters(), lambda revision, texts: None, observer)
    made.configure(config(**changes), targets(send, config(**changes), local))
    return made, observer, recorded


async def test_the_stages_of_a_request_are_recorded_once_for_each_part_and_batch() -> None:
    held = HeldRevision()

    async def send(texts: list[Text]) -> Answer:
        return (await held.send(texts))._replace(work=Work(0, 0.001, 0.002, 9))

    server, _, recorded = observed(send, max_batch_wait_ms=3_600_000)
    tasks = [asyncio.create_task(server.predict([text])) for text in "ab"]
    await held.started.wait()
    tasks.append(asyncio.create_task(server.predict(["c"])))
    await asyncio.sleep(0.02)
    held.released.set()
    await asyncio.gather(*tasks)
    assert [revision for revision, _ in recorded.totals] == ["rev-1"] * 3
    assert recorded.work == [Work(0, 0.001, 0.002, 9)] * 2
    assert len(recorded.waits) == 3 and recorded.waits[2] >= 0.02 > max(recorded.waits[:2])
    assert min(seconds for _, seconds in recorded.totals) >= 0.02


@pytest.mark.parametrize(
    ("failure", "kind", "status"),
    [
        (Unavailable("The revision is gone."), "unavailable", 503),
        (Overloaded("Too many."), "overloaded", 503),
        (RuntimeError("a bug"), "internal", 500),
    ],
)
async def test_a_request_without_an_answer_is_an_error_of_its_kind(failure: Exception, kind: str, status: int) -> None:
    async def fail(texts: list[Text]) -> Answer:
        raise failure

    server, observer, recorded = observed(fail)
    observer.log = log = Log()  # type: ignore[assignment]
    with pytest.raises(type(failure)):
        await server.predict(["a"], {"x-request-id": "id-1"})
    assert recorded.errors == [(kind, "rev-1")] and not recorded.totals
    [logged] = log.requests
    assert (logged.status, logged.request_id, logged.revision, logged.answer) == (status, "id-1", "rev-1", None)
    assert logged.error == str(failure)


async def test_time_outs_full_queues_and_clients_that_leave_are_told_apart() -> None:
    server, _, recorded = observed(HeldRevision().send, request_timeout_s=1, max_queued_requests=1)
    waiting = asyncio.create_task(server.predict(["a"]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await server.predict(["b"])
    waiting.cancel()
    await asyncio.wait([waiting])
    assert recorded.errors == [("overloaded", ""), ("disconnected", "rev-1")]
    with pytest.raises(Exception, match="did not answer"):
        await server.predict(["c"])
    assert recorded.errors[-1] == ("timeout", "rev-1")


async def test_what_a_model_refuses_and_what_it_fails_are_told_apart() -> None:
    rows = {"pair": Row([], "The model reads pairs.", invalid_input=True), "poison": Row([], "The model failed.")}

    async def send(texts: list[Text]) -> Answer:
        return Answer([rows.get(str(text), Row([0.1, 0.9])) for text in texts], MODEL, "replica-1")

    server, observer, recorded = observed(send)
    observer.log = log = Log()  # type: ignore[assignment]
    for texts in (["pair"], ["poison"], ["good", "poison"], ["good"]):
        await server.predict(texts)
    assert recorded.errors == [("invalid_input", "rev-1"), ("model", "rev-1"), ("model", "rev-1")]
    assert [each.status for each in log.requests] == [422, 500, 200, 200]


async def test_what_the_stable_revision_answers_in_a_canarys_place_is_told_of_the_canary() -> None:
    routes = [Route(revision="stable", version="v1", weight=0), Route(revision="canary", version="v2", weight=100)]
    recorded = Recorded()
    server = Predictor(Counters(), lambda revision, texts: None, Observer(recorded))

    async def fail(texts: list[Text]) -> Answer:
        raise Unavailable("The canary is gone.")

    stable, canary = targets(respond, config(routes=routes), local="stable")
    server.configure(config(routes=routes), [stable, type(canary)("canary", 100, False, fail)])
    assert (await server.predict(["a"]))[0] == "stable"
    assert recorded.errors == [("answered_by_stable", "canary")] and recorded.totals[0][0] == "stable"


async def test_a_list_is_logged_with_its_texts_only_if_they_are_asked_for() -> None:
    server, observer, _ = observed(respond)
    for texts in (False, True):
        observer.log = log = Log(texts=texts)  # type: ignore[assignment]
        await server.predict(["a", "b"])
        assert log.requests[0].texts == (["a", "b"] if texts else None)
        assert log.requests[0].number == 2 and log.requests[0].answer == answer(["a", "b"])


async def test_a_busy_server_tells_the_log() -> None:
    held = HeldRevision()
    server, observer, _ = observed(held.send, max_queued_requests=8)
    observer.log = log = Log()  # type: ignore[assignment]
    tasks = [asyncio.create_task(server.predict([text])) for text in "abcde"]
    await held.started.wait()
    held.released.set()
    await asyncio.gather(*tasks)
    assert log.busy[0] is True and log.busy[-1] is False


async def test_drift_counts_what_the_clients_were_answered_and_no_copies() -> None:
    mirror = Mirror(revision="canary", percent=100)
    routes = [Route(revision="stable", version="v1", weight=100), Route(revision="canary", version="v2", weight=0)]
    server, observer, _ = observed(respond, "stable", routes=routes, mirror=mirror)
    observer.drift = DriftWindows(60)
    await server.predict(["a", "b"])
    await asyncio.gather(*server._copies)
    assert observer.drift.profile("stable", MODEL.labels).texts == 2
    assert observer.drift.profile("canary", MODEL.labels).texts == 0


class Broken:
    """Whatever is asked of it fails."""

    config = type("Config", (), {"texts": False})

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("observing is broken")


@pytest.mark.parametrize("part", ["drift", "log", "tracing"])
async def test_what_is_broken_here_fails_no_request(part: str) -> None:
    server, observer, recorded = observed(respond)
    setattr(observer, part, Broken())
    assert (await server.predict(["a"]))[1] == answer(["a"])
    assert len(recorded.totals) == 1


async def test_a_predictor_that_is_told_nothing_observes_nothing() -> None:
    server = Predictor(Counters(), lambda revision, texts: None)
    server.configure(config(), targets(respond, config()))
    assert (await server.predict(["a"]))[1] == answer(["a"])


async def test_the_depth_of_a_queue_and_the_age_of_its_oldest_text_can_be_read() -> None:
    held = HeldRevision()
    server, _, _ = observed(held.send, max_batch_wait_ms=3_600_000)
    assert server.queues() == {"rev-1": (0, 0.0)}
    tasks = [asyncio.create_task(server.predict(["first"]))]
    await held.started.wait()
    tasks += [asyncio.create_task(server.predict([text, text])) for text in "ab"]
    await asyncio.sleep(0.02)
    [(texts, oldest_s)] = server.queues().values()
    assert texts == 4 and 0.01 < oldest_s < 5
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.wait(tasks[1:])
    assert server.queues()["rev-1"] == (0, 0.0), "clients that left wait no more"
    held.released.set()
    await tasks[0]
