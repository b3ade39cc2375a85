"""How a request is named: in every response, also of errors, in the log, and by the trace that it belongs to."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from luthier_serving.answers import Answer, Text
from luthier_serving.errors import Unavailable
from luthier_serving.replica import http
from luthier_serving.replica.access import ApiKeys
from luthier_serving.replica.http import build_http
from luthier_serving.replica.request_context import RequestContext, Trace, current, parse_traceparent
from support.serving.doubles import RecordedRequests, predictor, ready, respond
from support.temporary_keys import MountedSecret

pytestmark = pytest.mark.unit

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    keys = ApiKeys(MountedSecret(tmp_path / "keys", one="k1").folder)
    with TestClient(build_http(predictor(respond), RecordedRequests(), ready, keys)) as client:
        client.headers["Authorization"] = "Bearer k1"
        yield client


@pytest.mark.parametrize("sent", ["a", "req-42/7:é".encode("ascii", "ignore").decode(), "x" * 128, "!~"])
def test_an_id_that_is_fit_for_logs_and_headers_is_kept(client: TestClient, sent: str) -> None:
    reply = client.post("/predict", json={"text": "a"}, headers={"X-Request-Id": sent})
    assert reply.headers.get_list("X-Request-Id") == [sent]


@pytest.mark.parametrize("sent", [[], [b""], [b"x" * 129], [b"two words"], [b"\xc3\xa9"], [b"tab\tbed"], [b"a", b"b"]])
def test_any_other_id_is_replaced_by_one_of_our_own(client: TestClient, sent: list[bytes]) -> None:
    made = set()
    for _ in range(2):
        reply = client.post("/predict", json={"text": "a"}, headers=[(b"x-request-id", each) for each in sent])
        (found,) = reply.headers.get_list("X-Request-Id")
        assert len(found) == 32 and int(found, 16) >= 0
        made.add(found)
    assert len(made) == 2


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/healthz", {}, 200),
        ("GET", "/nothing", {}, 404),
        ("GET", "/predict", {}, 405),
        ("POST", "/predict", {"content": b"{"}, 400),
        ("POST", "/predict", {"json": {"text": "a"}, "headers": {"Authorization": "no"}}, 401),
        ("POST", "/predict", {"json": {"text": ""}}, 422),
        ("POST", "/predict", {"content": b"x", "headers": {"Content-Encoding": "br"}}, 415),
    ],
)
def test_every_response_is_named(client: TestClient, method: str, path: str, sent: dict[str, Any], status: int) -> None:
    headers = {"X-Request-Id": "mine", **sent.pop("headers", {})}
    reply = client.request(method, path, headers=headers, **sent)
    assert (reply.status_code, reply.headers.get_list("X-Request-Id")) == (status, ["mine"])


async def unavailable(texts: list[Text]) -> Answer:
    raise Unavailable("The revision does not answer.")


async def bug(texts: list[Text]) -> Answer:
    raise KeyError("a bug")


@pytest.mark.parametrize(("send", "status"), [(unavailable, 503), (bug, 500)])
def test_a_failure_is_named_too_and_a_bug_by_its_id_and_trace_in_the_log(
    send: Any, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(http.logger, "error", lambda text, *values, exc_info: lines.append(text % values))
    app = build_http(predictor(send), RecordedRequests(), ready)
    headers = {"X-Request-Id": "mine", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    with TestClient(app, raise_server_exceptions=False) as client:
        reply = client.post("/predict", json={"text": "a"}, headers=headers)
    assert (reply.status_code, reply.headers.get_list("X-Request-Id")) == (status, ["mine"])
    assert lines == ([f"request mine of trace {TRACE} failed"] if status == 500 else [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", Trace(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", Trace(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", Trace(TRACE, SPAN, True)),
        (f"01-{TRACE}-{SPAN}-01-what.comes.later", Trace(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01", Trace(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"01-{TRACE}-{SPAN}-01more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_a_trace_is_read_as_the_specification_says(value: str, expected: Trace | None) -> None:
    assert parse_traceparent(value.encode()) == expected


@pytest.mark.parametrize(("sent", "trace"), [(1, TRACE), (0, None), (2, None)])
async def test_what_answers_knows_the_names_of_its_request_and_nothing_does_afterwards(
    sent: int, trace: str | None
) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current())
        seen.append(dict(scope["headers"])[b"x-request-id"])

    headers = [(b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())] * sent
    await RequestContext(app)({"type": "http", "headers": headers}, None, None)  # type: ignore[arg-type]
    names, inner = seen
    assert names.log_fields == {"request_id": inner.decode()} | ({"trace_id": trace} if trace else {})
    assert current() is None


async def test_what_is_no_request_passes() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], current()))

    await RequestContext(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == [("lifespan", None)]


def test_the_logger_is_rays() -> None:
    assert http.logger is logging.getLogger("ray.serve")


def test_the_digest_of_the_version_is_in_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    from support.serving.doubles import answer

    digest = f"sha256:{'d' * 64}"

    async def send(texts: list[Text]) -> Answer:
        found = answer(texts)
        return found._replace(model=found.model._replace(digest=digest))

    for asked in ({"text": "a"}, {"texts": ["a", "b"]}):
        with TestClient(build_http(predictor(send), RecordedRequests(), ready)) as client:
            reply = client.post("/predict", json=asked)
        assert (reply.headers["X-Luthier-Version"], reply.headers["X-Luthier-Digest"]) == ("v1", digest)
