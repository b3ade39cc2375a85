"""Routes and answers of the server: a plain Starlette application around a `Predictor`.

Every response to a client is made here; an error is always `{"error": "<one sentence>"}`. Knows nothing of Ray, so that
all of it is tested without Ray.
"""

import asyncio
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

from luthier_serving.answers import Answer, ModelInfo, Row, Text
from luthier_serving.errors import BodyTooSlow, RequestError
from luthier_serving.replica.openapi import openapi_document
from luthier_serving.replica.pages import DOCS_PAGE, PAGE_HEADERS, TRY_PAGE
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.validation import (
    PredictRequest,
    RequestLimits,
    body_too_large,
    check_content_type,
    parse_request,
)
from luthier_serving.tasks import OUTPUTS

VERSION_HEADER = "X-Luthier-Version"
# A body over the limit is read to its end and discarded, up to this size: a client that is still sending when the
# connection closes sees a broken pipe instead of the answer.
DISCARD_BYTES = 32 * 1024 * 1024
CLIENT_CLOSED_REQUEST = 499

logger = logging.getLogger("ray.serve")


class RequestMetrics(Protocol):
    """Records answered requests."""

    def observe_request(self, code: int, revision: str, seconds: float, pending: int) -> None:
        """Record one request to /predict."""


def build_http(predictor: Predictor, metrics: RequestMetrics, ready: Callable[[], Awaitable[ModelInfo]]) -> Starlette:
    """Return the application.

    Args:
        predictor: answers texts.
        metrics: records requests.
        ready: returns the model that answers, or raises `RequestError`.
    """

    async def predict(request: Request) -> Response:
        started = time.perf_counter()
        revision, code = "", CLIENT_CLOSED_REQUEST
        try:
            asked = await _read_request(request, predictor.limits, predictor.config.request_timeout_s)
            revision, answer = await predictor.predict(asked.texts, request.headers)
            response = _predict_response(asked, answer)
            code = response.status_code
        except RequestError as error:
            response = _error_response(error)
            code = response.status_code
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        finally:
            metrics.observe_request(code, revision, time.perf_counter() - started, predictor.pending)
        return response

    async def healthz(request: Request) -> Response:
        return _json(200, {"status": "alive"})

    async def readyz(request: Request) -> Response:
        try:
            model = await ready()
        except RequestError as error:
            return _error_response(error)
        return _json(200, {"status": "ready", **_describe(model)})

    async def openapi(request: Request) -> Response:
        try:
            model = await ready()
        except RequestError:
            model = None
        return _json(200, openapi_document(predictor.config, model))

    async def docs(request: Request) -> Response:
        return HTMLResponse(DOCS_PAGE, headers=PAGE_HEADERS)

    async def page(request: Request) -> Response:
        return HTMLResponse(TRY_PAGE, headers=PAGE_HEADERS)

    application = Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/openapi.json", openapi),
            Route("/docs", docs),
            Route("/", page),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    # From /predict/ it would send clients to whatever their header Host says.
    application.router.redirect_slashes = False
    return application


async def _read_request(request: Request, limits: RequestLimits, limit_s: float) -> PredictRequest:
    check_content_type(request.headers.get("content-type"))
    try:
        async with asyncio.timeout(limit_s):
            body = await _read_body(request, limits)
    except TimeoutError:
        raise BodyTooSlow(f"The body did not arrive within {limit_s} s; send it faster, or fewer texts.") from None
    return parse_request(body, limits)


async def _read_body(request: Request, limits: RequestLimits) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limits.body_bytes:
            chunks.append(chunk)
        elif size > DISCARD_BYTES:
            raise body_too_large(limits, closes=True)
    if size > limits.body_bytes:
        raise body_too_large(limits)
    return b"".join(chunks)


def _predict_response(asked: PredictRequest, answer: Answer) -> Response:
    first = answer.rows[0]
    if first.invalid_input:
        # The texts of a request are all pairs, or none is: what is wrong with one is wrong with all.
        raise RequestError(str(first.error), status=422)
    results = [_result(text, row, answer.model) for text, row in zip(asked.texts, answer.rows, strict=True)]
    headers = {VERSION_HEADER: answer.model.version}
    if not asked.single:
        return _json(200, {"predictions": results}, headers)
    return _json(500 if first.error else 200, results[0], headers)


def _result(text: Text, row: Row, model: ModelInfo) -> dict[str, Any]:
    inputs = {"input_text": text} if isinstance(text, str) else {"input_text": text[0], "input_text_pair": text[1]}
    if row.error is not None:
        return {**inputs, "error": row.error, "version": model.version}
    return {**inputs, **OUTPUTS[model.task].result(inputs["input_text"], row.values, model), "version": model.version}


def _describe(model: ModelInfo) -> dict[str, Any]:
    return {"version": model.version, "task": model.task, "pairs": model.pairs, "weights": model.weights}


def _error_response(error: RequestError) -> Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.closes:
        headers["Connection"] = "close"
    return _json(error.status, {"error": str(error)}, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:100]  # request.url would read the header Host, which may be anything
    sentence = {
        404: f"There is nothing at {path}; send texts to POST /predict, or see GET /docs.",
        405: f"{request.method[:20]} is not allowed at {path}; GET /docs lists what is.",
    }.get(error.status_code, str(error.detail))
    return _json(error.status_code, {"error": sentence}, dict(error.headers or {}))


async def _internal_error(request: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return _json(500, {"error": "The server failed on this request; its log says why."})


def _json(status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")
