"""Routes and answers of the front: a plain Starlette application around a `Predictor`.

Everything that a client gets is made here; an error is always `{"error": "<one sentence>"}`. Knows nothing of Ray, so
that the whole surface is tested without it.
"""

import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from luthier_serving.answers import About, Answer, Row, Text
from luthier_serving.errors import RequestError
from luthier_serving.replica.openapi import openapi_document
from luthier_serving.replica.pages import DOCS_PAGE, PAGE_HEADERS, TRY_PAGE
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.validation import Limits, Question, body_too_large, check_content_type, parse_question
from luthier_serving.tasks import OUTPUTS

VERSION_HEADER = "X-Luthier-Version"
# A body that is too large is read to its end and thrown away up to this size, because a client that is still sending
# when the connection closes sees a broken pipe instead of the answer that tells it why.
DISCARD_BYTES = 32 * 1024 * 1024
CLIENT_CLOSED_REQUEST = 499

logger = logging.getLogger("ray.serve")


class Meter(Protocol):
    """Counts answered requests."""

    def request(self, code: int, revision: str, seconds: float, pending: int) -> None:
        """Count one request to /predict."""


def build_http(predictor: Predictor, meter: Meter, ready: Callable[[], Awaitable[About]]) -> Starlette:
    """Return the application.

    Args:
        predictor: answers texts.
        meter: counts requests.
        ready: returns the model that answers, or raises `RequestError`.
    """

    async def predict(request: Request) -> Response:
        started = time.perf_counter()
        revision, code = "", CLIENT_CLOSED_REQUEST
        try:
            question = await _read_question(request, predictor.limits)
            revision, answer = await predictor.predict(question.texts)
            response = _answered(question, answer)
            code = response.status_code
        except RequestError as error:
            response = _refused(error)
            code = response.status_code
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        finally:
            meter.request(code, revision, time.perf_counter() - started, predictor.pending)
        return response

    async def healthz(request: Request) -> Response:
        return _json(200, {"status": "alive"})

    async def readyz(request: Request) -> Response:
        try:
            return _json(200, {"status": "ready", **_model(await ready())})
        except RequestError as error:
            return _refused(error)

    async def openapi(request: Request) -> Response:
        try:
            return _json(200, openapi_document(predictor.config, await ready()))
        except RequestError:
            return _json(200, openapi_document(predictor.config, None))

    async def docs(request: Request) -> Response:
        return HTMLResponse(DOCS_PAGE, headers=PAGE_HEADERS)

    async def page(request: Request) -> Response:
        return HTMLResponse(TRY_PAGE, headers=PAGE_HEADERS)

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/openapi.json", openapi),
            Route("/docs", docs),
            Route("/", page),
        ],
        exception_handlers={HTTPException: _not_served, Exception: _failed},
    )


async def _read_question(request: Request, limits: Limits) -> Question:
    check_content_type(request.headers.get("content-type"))
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limits.body_bytes:
            chunks.append(chunk)
        elif size > DISCARD_BYTES:
            break
    if size > limits.body_bytes:
        raise body_too_large(limits)
    return parse_question(b"".join(chunks), limits)


def _answered(question: Question, answer: Answer) -> Response:
    first = answer.rows[0]
    if first.refused:
        # All of a request are pairs, or none is.
        raise RequestError(str(first.error), status=422)
    results = [_result(text, row, answer.about) for text, row in zip(question.texts, answer.rows, strict=True)]
    headers = {VERSION_HEADER: answer.about.version}
    if not question.single:
        return _json(200, {"predictions": results}, headers)
    return _json(500 if first.error else 200, results[0], headers)


def _result(text: Text, row: Row, about: About) -> dict[str, Any]:
    read = {"input_text": text} if isinstance(text, str) else {"input_text": text[0], "input_text_pair": text[1]}
    if row.error is not None:
        return {**read, "error": row.error, "version": about.version}
    return {**read, **OUTPUTS[about.task].result(read["input_text"], row.values, about), "version": about.version}


def _model(about: About) -> dict[str, Any]:
    return {"version": about.version, "task": about.task, "pairs": about.pairs, "weights": about.weights}


def _refused(error: RequestError) -> Response:
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return _json(error.status, {"error": str(error)}, headers)


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: f"There is nothing at {request.url.path[:100]}; POST /predict answers texts, GET /docs says how.",
        405: f"{request.method[:20]} is not allowed at {request.url.path[:100]}; GET /docs says what is.",
    }.get(error.status_code, str(error.detail))
    return _json(error.status_code, {"error": sentence}, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return _json(500, {"error": "The server failed on this request; its log says why."})


def _json(status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")
