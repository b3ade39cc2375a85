"""What lies around the routes: other origins and a path, on and off while the server runs."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from luthier_serving.answers import Answer, Text
from luthier_serving.replica.http import build_http
from luthier_serving.replica.layers import LayeredApplication
from support.serving.doubles import RecordedRequests, config, predictor, ready, respond

pytestmark = pytest.mark.unit

APP, OTHER = "https://app.example.com", "https://evil.example.com"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-user",
}


@pytest.fixture
def app() -> LayeredApplication:
    return build_http(predictor(respond), RecordedRequests(), ready)


@pytest.fixture
def client(app: LayeredApplication) -> Iterator[TestClient]:
    with TestClient(app, follow_redirects=False) as client:
        yield client


def of_cors(reply: object) -> list[str]:
    return [name for name in reply.headers if name.startswith("access-control")]  # type: ignore[attr-defined]


def test_no_page_of_another_origin_may_ask_unless_origins_are_listed(client: TestClient) -> None:
    reply = client.options("/predict", headers={"Origin": APP, **PREFLIGHT})
    assert reply.status_code == 405 and not of_cors(reply)
    assert not of_cors(client.post("/predict", json={"text": "a"}, headers={"Origin": APP}))


def test_a_listed_page_may_ask_with_any_header_and_read_what_names_the_answer(
    app: LayeredApplication, client: TestClient
) -> None:
    app.configure(config(allowed_origins=[APP, "http://localhost:3000"]))
    reply = client.options("/predict", headers={"Origin": APP, **PREFLIGHT})
    assert reply.status_code == 200 and reply.headers["Access-Control-Allow-Origin"] == APP
    assert reply.headers["Access-Control-Allow-Headers"] == PREFLIGHT["Access-Control-Request-Headers"]
    assert "Access-Control-Allow-Credentials" not in reply.headers
    reply = client.post("/predict", json={"text": "a"}, headers={"Origin": APP})
    assert reply.headers["Access-Control-Allow-Origin"] == APP and "Origin" in reply.headers["Vary"]
    assert {"X-Luthier-Version", "X-Request-Id"} <= set(reply.headers["Access-Control-Expose-Headers"].split(", "))


def test_a_page_that_is_not_listed_is_told_so_in_one_sentence(app: LayeredApplication, client: TestClient) -> None:
    app.configure(config(allowed_origins=[APP]))
    reply = client.options("/predict", headers={"Origin": OTHER, **PREFLIGHT})
    assert reply.status_code == 400 and "Access-Control-Allow-Origin" not in reply.headers
    assert list(reply.json()) == ["error"] and "allowOrigins" in reply.json()["error"]
    reply = client.post("/predict", json={"text": "a"}, headers={"Origin": OTHER})
    assert reply.status_code == 200 and "Access-Control-Allow-Origin" not in reply.headers, "the browser withholds it"


def test_a_star_lets_every_page_ask(app: LayeredApplication, client: TestClient) -> None:
    app.configure(config(allowed_origins=["*"]))
    reply = client.post("/predict", json={"text": "a"}, headers={"Origin": OTHER})
    assert reply.headers["Access-Control-Allow-Origin"] == "*"


def test_a_page_can_read_errors_too_also_that_of_a_bug() -> None:
    async def bug(texts: list[Text]) -> Answer:
        raise KeyError("a bug")

    app = build_http(predictor(bug), RecordedRequests(), ready)
    app.configure(config(allowed_origins=[APP]))
    with TestClient(app, raise_server_exceptions=False) as client:
        for sent, status in (({"text": ""}, 422), ({"text": "a"}, 500)):
            reply = client.post("/predict", json=sent, headers={"Origin": APP})
            assert (reply.status_code, reply.headers["Access-Control-Allow-Origin"]) == (status, APP)


def test_what_is_configured_applies_at_once_and_goes_again(app: LayeredApplication, client: TestClient) -> None:
    def may_ask(origin: str) -> bool:
        return client.options("/predict", headers={"Origin": origin, **PREFLIGHT}).status_code == 200

    assert not may_ask(APP)
    app.configure(config(allowed_origins=[APP]))
    assert may_ask(APP) and not may_ask(OTHER)
    app.configure(config(allowed_origins=[OTHER]))
    assert may_ask(OTHER) and not may_ask(APP)
    app.configure(config())
    assert not may_ask(APP) and not may_ask(OTHER)


def test_a_configuration_that_changes_neither_leaves_all_as_it_is(app: LayeredApplication, client: TestClient) -> None:
    client.get("/healthz")
    before = app.middleware_stack
    app.configure(config(max_texts=3))
    assert before is not None and app.middleware_stack is before


def test_below_a_path_the_server_answers_as_at_the_root_and_still_there(
    app: LayeredApplication, client: TestClient
) -> None:
    assert client.get("/reviews/readyz").status_code == 404
    app.configure(config(path_prefix="/reviews"))
    for prefix in ("", "/reviews"):
        assert client.post(f"{prefix}/predict", json={"text": "a"}).json()["version"] == "v1"
        assert client.get(f"{prefix}/readyz").status_code == 200
        assert "<textarea" in client.get(f"{prefix}/").text
    assert client.get("/reviewsx/readyz").status_code == 404
    moved = client.get("/reviews")
    assert (moved.status_code, moved.headers["Location"]) == (307, "/reviews/"), "the page's links are relative"
