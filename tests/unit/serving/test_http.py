"""The HTTP surface over a model that is a function: answers, errors, and clients that disconnect."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from luthier_api.documents import Route
from luthier_serving.answers import Answer, ModelInfo, Row, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.replica.http import DISCARD_BYTES, build_http
from luthier_serving.replica.pages import DOCS_PAGE, PAGE_HEADERS, TRY_PAGE
from support.serving.asgi import post_predict
from support.serving.doubles import (
    MODEL,
    HeldRevision,
    RecordedRequests,
    predictor,
    ready,
    respond,
    row,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def requests() -> RecordedRequests:
    return RecordedRequests()


@pytest.fixture
def client(requests: RecordedRequests) -> Iterator[TestClient]:
    with TestClient(build_http(predictor(respond), requests, ready)) as client:
        yield client


def test_one_text_is_answered_with_its_prediction_and_the_version(client: TestClient) -> None:
    negative, positive = row("naïve ☕").values
    reply = client.post("/predict", json={"text": "naïve ☕"})
    assert reply.status_code == 200
    assert reply.headers["X-Luthier-Version"] == "v1"
    assert reply.json() == {
        "input_text": "naïve ☕",
        "prediction": "positive",
        "confidence": positive,
        "probabilities": {"negative": negative, "positive": positive},
        "version": "v1",
    }


@pytest.mark.parametrize("field", ["text", "texts"])
def test_a_list_is_answered_in_order_also_when_it_fills_several_batches(client: TestClient, field: str) -> None:
    texts = [f"text {number}" for number in range(100)]
    predictions = client.post("/predict", json={field: texts}).json()["predictions"]
    assert [each["input_text"] for each in predictions] == texts
    assert [list(each["probabilities"].values()) for each in predictions] == [row(text).values for text in texts]


def test_a_text_that_the_model_fails_on_does_not_take_its_neighbours_along(client: TestClient) -> None:
    first, second, third = client.post("/predict", json={"texts": ["a", "poison", "c"]}).json()["predictions"]
    assert first["prediction"] == third["prediction"] == "positive"
    assert second == {"input_text": "poison", "error": "The model failed on this text.", "version": "v1"}


async def reject(texts: list[Text]) -> Answer:
    return Answer([Row([], "The model reads single texts.", invalid_input=True)] * len(texts), MODEL, "replica-1")


@pytest.mark.parametrize("asked", [{"text": "a", "text_pair": "b"}, {"texts": ["a", "b"], "text_pairs": ["c", "d"]}])
def test_a_request_that_the_model_does_not_read_is_the_callers_mistake(asked: dict[str, Any]) -> None:
    with TestClient(build_http(predictor(reject), RecordedRequests(), ready)) as client:
        reply = client.post("/predict", json=asked)
    assert (reply.status_code, reply.json()) == (422, {"error": "The model reads single texts."})


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "words"),
    [
        ("POST", "/predict", {"content": b""}, 400, "no body"),
        ("POST", "/predict", {"content": b"{"}, 400, "not JSON"),
        ("POST", "/predict", {"data": {"text": "a"}}, 415, "application/x-www-form-urlencoded"),
        ("POST", "/predict", {"json": {"text": ""}}, 422, "empty"),
        ("POST", "/predict", {"json": {"text": "a" * 10_000_000}}, 413, "larger than 1048576"),
        ("POST", "/predict", {"json": {"texts": ["a"] * 10_000}}, 413, "10000 texts"),
        ("GET", "/predict", {}, 405, "GET is not allowed"),
        ("POST", "/predictions", {"json": {"text": "a"}}, 404, "nothing at /predictions"),
        ("GET", "/-/secret", {}, 404, "nothing at"),
    ],
)
def test_a_bad_request_gets_its_status_and_one_sentence(
    client: TestClient, method: str, path: str, sent: dict[str, Any], status: int, words: str
) -> None:
    reply = client.request(method, path, **sent)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert words in reply.json()["error"]


def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(client: TestClient) -> None:
    assert client.get("/predict").headers["Allow"] == "POST"


def test_after_a_body_that_is_too_large_the_connection_still_answers(
    client: TestClient, requests: RecordedRequests
) -> None:
    assert client.post("/predict", json={"text": "a" * 10_000_000}).status_code == 413
    assert client.post("/predict", json={"text": "a"}).status_code == 200
    assert requests.codes == [(413, ""), (200, "rev-1")]


@pytest.mark.parametrize(
    ("failure", "status", "retry_after", "words"),
    [
        (Overloaded("Too many requests are queued."), 503, "1", "Too many"),
        (Unavailable("The revision does not answer."), 503, "5", "does not answer"),
        (RequestError("The model failed."), 500, None, "model failed"),
        (KeyError("a bug"), 500, None, "its log says why"),
    ],
)
def test_a_failure_behind_the_front_becomes_a_sentence(
    failure: Exception, status: int, retry_after: str | None, words: str
) -> None:
    async def fail(texts: list[Text]) -> Answer:
        raise failure

    with TestClient(build_http(predictor(fail), RecordedRequests(), ready), raise_server_exceptions=False) as client:
        reply = client.post("/predict", json={"text": "a"})
    assert (reply.status_code, reply.headers.get("Retry-After")) == (status, retry_after)
    assert words in reply.json()["error"]


@pytest.mark.parametrize("routes", [[], [Route(revision="rev-1", version="v1", weight=0)]])
def test_without_a_revision_the_answer_is_503_with_retry_after(routes: list[Route]) -> None:
    with TestClient(build_http(predictor(respond, routes=routes), RecordedRequests(), ready)) as client:
        reply = client.post("/predict", json={"text": "a"})
    assert reply.status_code == 503 and reply.headers["Retry-After"] == "5"


def test_health_is_the_process_and_readiness_is_the_model() -> None:
    async def is_not_ready() -> ModelInfo:
        raise Unavailable("No model answers yet.")

    with TestClient(build_http(predictor(respond), RecordedRequests(), is_not_ready)) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
    with TestClient(build_http(predictor(respond), RecordedRequests(), ready)) as client:
        assert client.get("/readyz").json() == {
            "status": "ready",
            "version": "v1",
            "task": "text-classification",
            "pairs": False,
            "weights": "model.onnx",
        }


@pytest.mark.parametrize("page", [TRY_PAGE, DOCS_PAGE])
def test_a_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert not re.findall(r"https?://|//\w|@import|url\(|integrity=|src=", page)
    assert "innerHTML" not in page, "text of a user or a model must not become markup"
    assert "default-src 'none'" in PAGE_HEADERS["Content-Security-Policy"]


def test_a_single_text_that_the_model_fails_on_is_a_server_error(client: TestClient) -> None:
    reply = client.post("/predict", json={"text": "poison"})
    assert reply.status_code == 500
    assert reply.json()["error"] == "The model failed on this text."


async def test_a_body_over_the_limit_is_read_to_its_end_and_one_without_end_is_not() -> None:
    requests = RecordedRequests()
    app = build_http(predictor(respond, max_body_bytes=100), requests, ready)
    read = []

    def chunks(total: int) -> Iterator[bytes]:
        for _ in range(total // (1 << 20)):
            read.append(1 << 20)
            yield b" " * (1 << 20)

    for total, expected in ((DISCARD_BYTES, DISCARD_BYTES), (2 * DISCARD_BYTES, DISCARD_BYTES + (1 << 20))):
        read.clear()
        status, document = await post_predict(app, chunks(total))
        assert status == 413 and "larger than 100 bytes" in document["error"]
        assert sum(read) == expected
    assert requests.codes == [(413, "")] * 2


@pytest.mark.parametrize(("spaces", "status"), [(0, 200), (1, 413)])
async def test_a_body_of_exactly_the_limit_is_answered_however_it_arrives(spaces: int, status: int) -> None:
    body = json.dumps({"text": "good"}).encode() + b" " * spaces
    app = build_http(predictor(respond, max_body_bytes=len(body) - spaces), RecordedRequests(), ready)
    assert (await post_predict(app, [body[:5], body[5:9], body[9:]]))[0] == status


async def test_a_client_that_disconnects_while_it_sends_is_counted_and_asks_nothing_of_the_model() -> None:
    requests, held = RecordedRequests(), HeldRevision()
    app = build_http(predictor(held.send), requests, ready)
    await post_predict(app, [b'{"text": '], disconnects=True)
    assert requests.codes == [(499, "")]
    assert held.batches == []


async def test_the_neighbours_of_a_client_that_disconnects_get_their_own_answers() -> None:
    requests, held = RecordedRequests(), HeldRevision()
    app = build_http(predictor(held.send), requests, ready)
    texts = ["leaves", "stays", "leaves too", "stays too"]
    clients = [asyncio.create_task(post_predict(app, [json.dumps({"text": text}).encode()])) for text in texts]
    await held.started.wait()
    # What Ray Serve does when a client disconnects.
    clients[0].cancel()
    clients[2].cancel()
    await asyncio.wait([clients[0], clients[2]])
    held.released.set()
    assert held.batches == [texts]
    for text, client in ((texts[1], clients[1]), (texts[3], clients[3])):
        status, document = await client
        assert status == 200 and document["input_text"] == text
        assert list(document["probabilities"].values()) == row(text).values
    assert sorted(requests.codes) == [(200, "rev-1"), (200, "rev-1"), (499, ""), (499, "")]
    assert requests.pending[-1] == 0


async def test_what_is_recorded_of_a_request_is_its_time_and_how_many_wait() -> None:
    requests, held = RecordedRequests(), HeldRevision()
    app = build_http(predictor(held.send), requests, ready)
    first = asyncio.create_task(post_predict(app, [b'{"text": "a"}']))
    await held.started.wait()
    assert (await post_predict(app, [b'{"text": ""}']))[0] == 422
    held.released.set()
    await first
    assert requests.pending == [1, 0]
    assert requests.codes == [(422, ""), (200, "rev-1")]
    assert requests.seconds[1] > requests.seconds[0] > 0


def test_an_adapter_is_chosen_by_the_body_or_by_the_path(requests: RecordedRequests) -> None:
    held = HeldRevision()
    held.released.set()
    films = {"name": "films", "uri": "s3://m/films/versions/v", "version": "v", "digest": "sha256:" + "0" * 64}
    with TestClient(build_http(predictor(held.send, adapters=[films]), requests, ready)) as client:
        for path, body in (
            ("/predict", {"text": "a", "model": "reviews:films"}),
            ("/models/reviews:films/predict", {"text": "a"}),
            ("/models/reviews/predict", {"text": "a"}),
            ("/predict", {"text": "a"}),
        ):
            assert client.post(path, json=body).status_code == 200
        assert held.adapters == ["films", "films", None, None]
        reply = client.post("/models/reviews:books/predict", json={"text": "a"})
    assert reply.status_code == 404
    assert reply.json() == {
        "error": "There is no model 'reviews:books' here; this server has 'reviews' and 'reviews:films'."
    }


async def test_a_body_that_does_not_arrive_in_time_is_a_408_and_the_connection_ends() -> None:
    requests = RecordedRequests()
    server = predictor(respond)
    server.config = server.config.model_copy(update={"request_timeout_s": 0.01})
    app = build_http(server, requests, ready)
    messages: list[Message] = [{"type": "http.request", "body": b'{"text', "more_body": True}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"].startswith("The body did not arrive within 0.01 s")
    assert requests.codes == [(408, "")] and server.pending == 0


@pytest.mark.parametrize("host", ["[", "[::1", "a b", "\N{LATIN SMALL LETTER E WITH ACUTE}", ""])
@pytest.mark.parametrize("path", ["/nowhere", "/predict/", "/predict"])
def test_no_header_host_leads_anywhere_or_disturbs_an_error(client: TestClient, host: str, path: str) -> None:
    reply = client.get(path, headers={"host": host.encode("latin-1")}, follow_redirects=False)
    assert reply.status_code == (405 if path == "/predict" else 404)
    assert path in reply.json()["error"] and "location" not in reply.headers
