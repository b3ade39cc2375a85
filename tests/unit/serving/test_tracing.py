"""Spans of requests and batches, as a collector receives them over HTTP."""

import asyncio
import importlib.util
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from luthier_api.documents import TracingConfig
from luthier_serving.answers import Answer, Text, Work
from luthier_serving.observe import tracing
from luthier_serving.observe.observer import Observer
from luthier_serving.observe.tracing import Tracing
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.revision_queue import SendBatch
from support.serving.doubles import HeldRevision, answer, config, targets
from support.serving.otlp import Collector, ReceivedSpan, collector

pytestmark = pytest.mark.unit

CALLER, CALLERS_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traceparent(*, sampled: bool) -> dict[str, str]:
    return {"traceparent": f"00-{CALLER}-{CALLERS_SPAN}-{'01' if sampled else '00'}"}


class Traced:
    """A predictor whose spans go to a collector; the model takes 2 ms to tokenize and 3 ms to compute."""

    def __init__(self, received: Collector, share: float) -> None:
        self.received = received
        self.observer = Observer()
        self.draws: list[float] = []
        self.observer.tracing = Tracing(
            TracingConfig(endpoint=received.endpoint, share=share),
            {"service.name": "team/reviews"},
            draw=lambda: self.draws.pop(0) if self.draws else 0.0,
        )
        self.predictor = Predictor(Counters(), lambda revision, texts: None, self.observer)
        self.send: SendBatch = self.respond
        self.limit()

    def limit(self, **changes: Any) -> None:
        self.predictor.configure(config(**changes), targets(lambda texts: self.send(texts), config(**changes)))

    async def respond(self, texts: list[Text]) -> Answer:
        started = time.time_ns()
        await asyncio.sleep(0.006)
        return answer(texts)._replace(work=Work(started, 0.002, 0.003, tokens=5 * len(texts)))

    async def spans(self) -> list[ReceivedSpan]:
        assert self.observer.tracing
        await asyncio.to_thread(self.observer.tracing.close)
        return self.received.spans


@pytest.fixture
async def traced() -> AsyncIterator[Traced]:
    with collector() as received:
        made = Traced(received, share=0.5)
        yield made
        await made.spans()


def one(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    [found] = [span for span in spans if span.name == name]
    return found


async def test_a_request_is_a_span_with_its_queue_and_its_batch_below_it(traced: Traced) -> None:
    await traced.predictor.predict(["a", "b"], {"x-request-id": "id-1"})
    spans = await traced.spans()
    assert sorted(span.name for span in spans) == ["batch", "compute", "predict", "queue", "tokenize"]
    assert len({span.trace for span in spans}) == 1
    predict, queue, batch = (one(spans, name) for name in ("predict", "queue", "batch"))
    tokenize, compute = one(spans, "tokenize"), one(spans, "compute")
    assert predict.parent == "" and {queue.parent, batch.parent} == {predict.id}
    assert {tokenize.parent, compute.parent} == {batch.id}
    assert (tokenize.end_ns - tokenize.start_ns, compute.end_ns - compute.start_ns) == (2_000_000, 3_000_000)
    assert predict.start_ns <= queue.start_ns + 1_000_000 and queue.end_ns == batch.start_ns
    assert batch.start_ns <= tokenize.start_ns + 1_000_000 and compute.start_ns == tokenize.end_ns
    assert compute.end_ns <= batch.end_ns and batch.end_ns <= predict.end_ns + 1_000_000
    assert predict.attributes == {
        "http.response.status_code": 200, "luthier.texts": 2, "luthier.revision": "rev-1",
        "luthier.request_id": "id-1", "luthier.version": "v1",
    }  # fmt: skip
    assert batch.attributes == {
        "luthier.revision": "rev-1", "luthier.version": "v1", "luthier.replica": "replica-1", "luthier.batch.texts": 2,
        "luthier.batch.tokens": 10,
    }  # fmt: skip
    assert predict.resource["service.name"] == "team/reviews"
    assert traced.received.paths == ["/v1/traces"]


async def test_a_callers_trace_goes_on_here_if_it_is_sampled(traced: Traced) -> None:
    traced.draws = [0.99, 0.99]
    await traced.predictor.predict(["a"], traceparent(sampled=True))
    await traced.predictor.predict(["b"], traceparent(sampled=False))
    await traced.predictor.predict(["c"], {"traceparent": "garbage"})
    spans = await traced.spans()
    assert {span.trace for span in spans} == {CALLER}
    assert one(spans, "predict").parent == CALLERS_SPAN and not traced.draws[1:]


async def test_of_requests_without_a_trace_the_share_is_sampled_and_the_rest_leaves_nothing(traced: Traced) -> None:
    traced.draws = [0.49, 0.5, 0.99, 0.0]
    for _ in range(4):
        await traced.predictor.predict(["a"])
    spans = await traced.spans()
    assert len([span for span in spans if span.name == "predict"]) == 2 == len({span.trace for span in spans})


async def test_a_batch_of_several_requests_links_to_each_and_they_link_to_it(traced: Traced) -> None:
    held = HeldRevision()
    traced.send = held.send
    first = asyncio.create_task(traced.predictor.predict(["first"]))
    await held.started.wait()
    traced.draws = [0.0, 0.99, 0.0]
    others = [asyncio.create_task(traced.predictor.predict([text])) for text in "abc"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    held.released.set()
    await asyncio.gather(first, *others)
    spans = await traced.spans()
    assert held.batches == [["first"], ["a", "b", "c"]]
    [shared] = [span for span in spans if span.name == "batch" and span.attributes["luthier.batch.texts"] == 3]
    members = {span.id: span for span in spans if span.name == "predict" and span.trace in {t for t, _ in shared.links}}
    assert {link for _, link in shared.links} == set(members) and len(members) == 2, "the one in between is not sampled"
    assert shared.parent in members
    [other] = [span for span in members.values() if span.id != shared.parent]
    assert other.links == [(shared.trace, shared.id)]


async def test_a_list_in_several_batches_has_each_of_them_in_its_trace(traced: Traced) -> None:
    traced.limit(max_batch_texts=8)
    await traced.predictor.predict([f"text {number}" for number in range(20)])
    spans = await traced.spans()
    assert len([span for span in spans if span.name == "batch"]) == 3
    assert len({span.trace for span in spans}) == 1


async def test_a_request_that_fails_is_a_failed_span_with_its_status(traced: Traced) -> None:
    async def fail(texts: list[Text]) -> Answer:
        raise RuntimeError("the process died")

    traced.send = fail
    with pytest.raises(RuntimeError):
        await traced.predictor.predict(["a"])
    spans = await traced.spans()
    assert one(spans, "predict").failed and one(spans, "batch").failed
    assert one(spans, "predict").attributes["http.response.status_code"] == 500


async def test_a_collector_that_is_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EXPORT_TIMEOUT_S", 0.1)
    with collector() as received:
        made = Traced(received, share=1)
    before = time.monotonic()
    for _ in range(50):
        await made.predictor.predict(["a"])
    assert time.monotonic() - before < 5
    assert (await made.predictor.predict(["a"]))[1].rows
    assert not await made.spans()


def test_who_traces_nothing_needs_no_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # as in an image that lacks it
    spec = importlib.util.spec_from_file_location("tracing_again", tracing.__file__)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tracing_again", module)
    spec.loader.exec_module(module)
    assert module.CURRENT.get() is None
    with pytest.raises(ImportError):
        module.Tracing(TracingConfig(endpoint="http://x", share=1), {})
