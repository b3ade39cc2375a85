"""Around Ray's own HTTP server: one name for a request, and Ray's own errors as JSON."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from luthier_serving.haproxy import SENTENCES
from luthier_serving.replica.front import middlewares
from luthier_serving.replica.http import build_http
from support.serving.doubles import RecordedRequests, predictor, ready, respond
from support.serving.ray_applications import rays_middlewares

pytestmark = pytest.mark.unit


def in_ray(app: ASGIApp) -> TestClient:
    """Return a client of an application as Ray serves it: with its own middleware, and around that ours."""
    return TestClient(rays_middlewares(app, middlewares()))


@pytest.mark.parametrize(("sent", "kept"), [("mine", True), ("two words", False), ("", False)])
def test_a_request_has_one_name_although_ray_names_it_too(sent: str, kept: bool) -> None:
    client = in_ray(build_http(predictor(respond), RecordedRequests(), ready))
    reply = client.post("/predict", json={"text": "a"}, headers={"X-Request-Id": sent} if sent else {})
    (found,) = reply.headers.get_list("X-Request-Id")
    assert (found == sent) is kept


def says(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    return app


PLAIN = (b"content-type", b"text/plain")


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (503, b"Request dropped due to backpressure", "Request dropped due to backpressure."),
        (404, b"Path '/x' not found.", "Path '/x' not found."),
        (500, b"Internal Server Error", "Internal Server Error."),
        (500, b"Traceback:\n  File x\nKeyError", "The server failed on this request; its log says why."),
        (500, b"", "The server failed on this request."),
        (408, b"a" * 5000, "a" * 2000 + "."),
    ],
)
def test_what_ray_says_in_plain_text_becomes_a_sentence(status: int, body: bytes, sentence: str) -> None:
    client = in_ray(says(status, body, PLAIN, (b"content-length", str(len(body)).encode())))
    reply = client.get("/predict")
    assert (reply.status_code, reply.json()) == (status, {"error": sentence})
    assert reply.headers.get("Retry-After") == ("5" if status == 503 else None)
    assert len(reply.headers.get_list("X-Request-Id")) == 1


@pytest.mark.parametrize(
    ("status", "path", "headers"),
    [
        (200, "/predict", [PLAIN]),
        (500, "/predict", [(b"content-type", b"application/json")]),
        (404, "/predict", [(b"content-type", b"text/html; charset=utf-8")]),
        (503, "/-/healthz", [PLAIN]),
    ],
)
def test_other_responses_pass_as_they_are(status: int, path: str, headers: list[Any]) -> None:
    client = in_ray(says(status, b"something else", *headers))
    reply = client.get(path)
    assert (reply.status_code, reply.content) == (status, b"something else")


def test_a_request_that_ray_lost_with_its_replica_is_answered_as_haproxy_sends_it_again() -> None:
    async def lost(scope: Scope, receive: Receive, send: Send) -> None:
        return

    reply = in_ray(lost).post("/predict", json={"text": "a"})
    assert (reply.status_code, reply.json()) == (502, {"error": SENTENCES[502]})
    image = (Path(__file__).parents[3] / "serving" / "Dockerfile").read_text()
    assert 'RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response 502"' in image


def test_how_long_to_wait_is_rays_word_where_it_has_one() -> None:
    client = in_ray(says(503, b"full", PLAIN, (b"retry-after", b"9")))
    assert client.get("/predict").headers.get_list("Retry-After") == ["9"]
