"""The HTTP surface over a model that is a function: answers, refusals, batches that survive their members."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from luthier_api.documents import FrontConfig, Route
from luthier_api.training import Task
from luthier_serving.answers import About, Answer, Row, Span, Text
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.replica.http import build_http
from luthier_serving.replica.openapi import openapi_document
from luthier_serving.replica.pages import DOCS_PAGE, PAGE_HEADERS, TRY_PAGE
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.revision_queue import Send

pytestmark = pytest.mark.unit


class Counter:
    def __init__(self) -> None:
        self.codes: list[tuple[int, str]] = []

    def request(self, code: int, revision: str, seconds: float, pending: int) -> None:
        self.codes.append((code, revision))


ABOUT = About("v1", "model.onnx", Task.TEXT_CLASSIFICATION, ("negative", "positive"), pairs=False, threshold=0.5)


def answer(texts: list[Text], version: str = "v1") -> Answer:
    rows = [Row([], "The model failed on this text.") if "poison" in text else Row([0.25, 0.75]) for text in texts]
    return Answer(rows, ABOUT._replace(version=version), "replica-1")


def config(**changes: Any) -> FrontConfig:
    routes = [Route(revision="rev-1", version="v1", weight=100)]
    return FrontConfig(**({"model_name": "reviews", "routes": routes} | changes))


def predictor(send: Send, **changes: Any) -> Predictor:
    made = Predictor(lambda revision: send, lambda revision, texts: None)
    made.configure(config(**changes))
    return made


async def respond(texts: list[Text]) -> Answer:
    return answer(texts)


async def is_ready() -> About:
    return ABOUT


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def client(counter: Counter) -> Iterator[TestClient]:
    with TestClient(build_http(predictor(respond), counter, is_ready)) as client:
        yield client


def test_one_text_is_answered_with_its_prediction_and_the_version(client: TestClient) -> None:
    reply = client.post("/predict", json={"text": "naïve ☕"})
    assert reply.status_code == 200
    assert reply.headers["X-Luthier-Version"] == "v1"
    assert reply.json() == {
        "input_text": "naïve ☕",
        "prediction": "positive",
        "confidence": 0.75,
        "probabilities": {"negative": 0.25, "positive": 0.75},
        "version": "v1",
    }


@pytest.mark.parametrize("field", ["text", "texts"])
def test_a_list_is_answered_in_order_also_when_it_fills_several_batches(client: TestClient, field: str) -> None:
    texts = [f"text {number}" for number in range(100)]
    reply = client.post("/predict", json={field: texts})
    assert [row["input_text"] for row in reply.json()["predictions"]] == texts


def test_a_text_that_the_model_fails_on_does_not_take_its_neighbours_along(client: TestClient) -> None:
    first, second, third = client.post("/predict", json={"texts": ["a", "poison", "c"]}).json()["predictions"]
    assert first["prediction"] == third["prediction"] == "positive"
    assert second == {"input_text": "poison", "error": "The model failed on this text.", "version": "v1"}


ANSWERS: list[tuple[Task, tuple[str, ...], Row, dict[str, Any]]] = [
    (Task.TEXT_CLASSIFICATION, ("a", "b"), Row([0.9, 0.1]), {
        "prediction": "a", "confidence": 0.9, "probabilities": {"a": 0.9, "b": 0.1}}),
    (Task.MULTI_LABEL, ("a", "b", "c"), Row([0.7, 0.2, 0.3]), {
        "prediction": ["a", "c"], "probabilities": {"a": 0.7, "b": 0.2, "c": 0.3}}),
    (Task.MULTI_LABEL, ("a", "b"), Row([0.1, 0.29]), {"prediction": [], "probabilities": {"a": 0.1, "b": 0.29}}),
    (Task.REGRESSION, ("stars",), Row([3.25]), {"prediction": 3.25}),
    (Task.TOKEN_CLASSIFICATION, ("O", "B-PER", "B-LOC"), Row([Span(0, 3, 1, 0.8), Span(9, 14, 2, 0.75)]), {
        "prediction": [
            {"label": "PER", "text": "Zoë", "start": 0, "end": 3, "confidence": 0.8},
            {"label": "LOC", "text": "Paris", "start": 9, "end": 14, "confidence": 0.75},
        ]}),
]  # fmt: skip


@pytest.mark.parametrize(("task", "labels", "row", "expected"), ANSWERS)
def test_each_task_answers_in_its_own_words_and_as_it_is_described(
    task: Task, labels: tuple[str, ...], row: Row, expected: dict[str, Any]
) -> None:
    about = About("v1", "model.onnx", task, labels, pairs=False, threshold=0.3)

    async def send(texts: list[Text]) -> Answer:
        return Answer([row] * len(texts), about, "replica-1")

    async def ready() -> About:
        return about

    with TestClient(build_http(predictor(send), Counter(), ready)) as client:
        one = client.post("/predict", json={"text": "Zoë  saw Paris"}).json()
        several = client.post("/predict", json={"texts": ["Zoë  saw Paris"] * 2}).json()
        described = client.get("/openapi.json").json()
    assert one == {"input_text": "Zoë  saw Paris", **expected, "version": "v1"}
    assert several == {"predictions": [one, one]}
    for document in (described, openapi_document(config(), None)):
        check(one, "Prediction", document)
        check(several, "Predictions", document)
    with pytest.raises(jsonschema.ValidationError):
        check({**one, "prediction": {"of": "no task"}}, "Prediction", described)


def check(instance: object, name: str, description: dict[str, Any]) -> None:
    """Hold an answer against the description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(instance)


async def refuse(texts: list[Text]) -> Answer:
    return Answer([Row([], "The model reads single texts.", refused=True)] * len(texts), ABOUT, "replica-1")


@pytest.mark.parametrize("asked", [{"text": "a", "text_pair": "b"}, {"texts": ["a", "b"], "text_pairs": ["c", "d"]}])
def test_a_request_that_the_model_does_not_read_is_the_callers_mistake(asked: dict[str, Any]) -> None:
    with TestClient(build_http(predictor(refuse), Counter(), is_ready)) as client:
        reply = client.post("/predict", json=asked)
    assert (reply.status_code, reply.json()) == (422, {"error": "The model reads single texts."})


def test_pairs_come_back_as_they_were_sent_and_so_says_the_description() -> None:
    asked: list[list[Text]] = []

    async def send(texts: list[Text]) -> Answer:
        asked.append(texts)
        return Answer([Row([0.25, 0.75])] * len(texts), ABOUT._replace(pairs=True), "replica-1")

    async def ready() -> About:
        return ABOUT._replace(pairs=True)

    with TestClient(build_http(predictor(send), Counter(), ready)) as client:
        one = client.post("/predict", json={"text": "a", "text_pair": "b"}).json()
        several = client.post("/predict", json={"texts": ["a", "c"], "text_pairs": ["b", "d"]}).json()["predictions"]
        description = client.get("/openapi.json").json()
    assert asked == [[("a", "b")], [("a", "b"), ("c", "d")]]
    assert (one["input_text"], one["input_text_pair"], one["prediction"]) == ("a", "b", "positive")
    assert several[0] == one and several[1]["input_text_pair"] == "d"
    check(one, "Prediction", description)
    body = description["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        jsonschema.Draft202012Validator(body["schema"]).validate(example["value"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(body["schema"]).validate({"text": "a"})


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


def test_after_a_refused_body_the_connection_still_answers(client: TestClient, counter: Counter) -> None:
    assert client.post("/predict", json={"text": "a" * 10_000_000}).status_code == 413
    assert client.post("/predict", json={"text": "a"}).status_code == 200
    assert counter.codes == [(413, ""), (200, "rev-1")]


@pytest.mark.parametrize(
    ("failure", "status", "retry_after", "words"),
    [
        (Overloaded("Too many requests wait."), 503, "1", "Too many"),
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

    with TestClient(build_http(predictor(fail), Counter(), is_ready), raise_server_exceptions=False) as client:
        reply = client.post("/predict", json={"text": "a"})
    assert (reply.status_code, reply.headers.get("Retry-After")) == (status, retry_after)
    assert words in reply.json()["error"]


@pytest.mark.parametrize("routes", [[], [Route(revision="rev-1", version="v1", weight=0)]])
def test_without_a_revision_the_answer_is_503_with_retry_after(routes: list[Route]) -> None:
    with TestClient(build_http(predictor(respond, routes=routes), Counter(), is_ready)) as client:
        reply = client.post("/predict", json={"text": "a"})
    assert reply.status_code == 503 and reply.headers["Retry-After"] == "5"


def test_health_is_the_process_and_readiness_is_the_model() -> None:
    async def is_not_ready() -> About:
        raise Unavailable("No model answers yet.")

    with TestClient(build_http(predictor(respond), Counter(), is_not_ready)) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
    with TestClient(build_http(predictor(respond), Counter(), is_ready)) as client:
        assert client.get("/readyz").json() == {
            "status": "ready",
            "version": "v1",
            "task": "text-classification",
            "pairs": False,
            "weights": "model.onnx",
        }


def test_the_description_names_exactly_what_is_served() -> None:
    app = build_http(predictor(respond), Counter(), is_ready)
    served = {(route.path, method.lower()) for route in app.routes for method in route.methods - {"HEAD"}}
    described = {
        (path, method) for path, methods in openapi_document(config(), None)["paths"].items() for method in methods
    }
    assert described == served


def test_the_description_holds_together_and_tells_the_limits_in_force(client: TestClient) -> None:
    text = json.dumps(client.get("/openapi.json").json())
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in client.get("/openapi.json").json()["components"]["schemas"]
    assert '"maxItems": 1000' in text and "reviews" in text


@pytest.mark.parametrize("page", [TRY_PAGE, DOCS_PAGE])
def test_a_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert not re.findall(r"https?://|//\w|@import|url\(|integrity=|src=", page)
    assert "innerHTML" not in page, "text of a user or a model must not become markup"
    assert "default-src 'none'" in PAGE_HEADERS["Content-Security-Policy"]


async def test_more_requests_than_may_wait_are_refused_and_room_is_given_back() -> None:
    release = asyncio.Event()

    async def hold(texts: list[Text]) -> Answer:
        await release.wait()
        return answer(texts)

    front = predictor(hold, max_queued_requests=3)
    held = [asyncio.create_task(front.predict(["a"])) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="3 requests wait"):
        await front.predict(["b"])
    release.set()
    await asyncio.gather(*held)
    assert front.pending == 0
    assert (await front.predict(["c"]))[0] == "rev-1"


async def test_a_client_that_goes_away_takes_only_its_own_text_along() -> None:
    batches: list[list[Text]] = []
    release = asyncio.Event()

    async def hold(texts: list[Text]) -> Answer:
        batches.append(texts)
        await release.wait()
        return answer(texts)

    front = predictor(hold, max_batch_wait_ms=1000)
    first = asyncio.create_task(front.predict(["on its way"]))
    while not batches:
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(front.predict([text])) for text in ("stays", "leaves", "stays too")]
    await asyncio.sleep(0)
    waiting[1].cancel()
    release.set()
    await asyncio.gather(first, waiting[0], waiting[2])
    assert batches == [["on its way"], ["stays", "stays too"]]
    assert front.pending == 0


async def test_a_client_that_goes_away_while_its_batch_is_computed_does_not_disturb_the_others() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: list[Text]) -> Answer:
        started.set()
        await release.wait()
        return answer(texts)

    front = predictor(hold)
    tasks = [asyncio.create_task(front.predict([text])) for text in ("leaves", "stays")]
    await started.wait()
    tasks[0].cancel()
    release.set()
    assert (await tasks[1])[1].rows == [Row([0.25, 0.75])]


async def test_an_answer_that_takes_too_long_is_a_504_and_frees_its_place() -> None:
    async def hang(texts: list[Text]) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    front = predictor(hang, max_queued_requests=1)
    front.config = front.config.model_copy(update={"request_timeout_s": 0.01})
    with pytest.raises(RequestError) as refusal:
        await front.predict(["a"])
    assert refusal.value.status == 504 and front.pending == 0


async def test_new_weights_take_hold_at_once_and_requests_on_their_way_are_answered() -> None:
    release = asyncio.Event()

    def connect(revision: str) -> Send:
        async def send(texts: list[Text]) -> Answer:
            await release.wait()
            return answer(texts, version=revision)

        return send

    front = Predictor(connect, lambda revision, texts: None)
    front.configure(config(routes=[Route(revision="old", version="1", weight=100)]))
    on_its_way = asyncio.create_task(front.predict(["a"]))
    await asyncio.sleep(0)
    front.configure(config(routes=[Route(revision="new", version="2", weight=100)]))
    release.set()
    assert (await front.predict(["b"]))[1].about.version == "new"
    assert (await on_its_way)[1].about.version == "old"
