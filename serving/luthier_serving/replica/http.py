"""Routes and answers of the server: a plain Starlette application around a `Predictor`.

Every response to a client over HTTP is made here; an error is always `{"error": "<one sentence>"}`. Requests for
predictions go the way of `endpoint`, each in its protocol. Knows nothing of Ray, so that all is tested without Ray.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from luthier_serving.answers import ModelInfo
from luthier_serving.errors import BodyTooSlow, RequestError, Unavailable
from luthier_serving.replica.access import ApiKeys, with_api_keys
from luthier_serving.replica.bodies import DISCARD_BYTES
from luthier_serving.replica.discovery import Discovery, Ready
from luthier_serving.replica.endpoint import CLIENT_CLOSED_REQUEST, Endpoint, RequestMetrics
from luthier_serving.replica.layers import LayeredApplication
from luthier_serving.replica.openapi import openapi_document
from luthier_serving.replica.pages import DOCS_PAGE, PAGE_HEADERS, TRY_PAGE
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.protocols.hugging_face import HuggingFace
from luthier_serving.replica.protocols.interface import HttpProtocol, HttpRequest, json_reply
from luthier_serving.replica.protocols.predict import Predict
from luthier_serving.replica.protocols.v1 import V1
from luthier_serving.replica.protocols.v2 import V2
from luthier_serving.replica.request_context import current
from luthier_serving.replica.responses import error_response, respond
from luthier_serving.replica.validation import RequestLimits, body_too_large

POST = ["POST"]

logger = logging.getLogger("ray.serve")
Handler = Callable[[Request], Awaitable[Response]]
Tell = Callable[[Request], Awaitable[Any]]


def build_http(
    predictor: Predictor, metrics: RequestMetrics, ready: Ready, keys: ApiKeys | None = None
) -> LayeredApplication:
    """Return the application.

    Args:
        predictor: answers texts.
        metrics: records requests.
        ready: returns the model that answers, or raises `RequestError`.
        keys: who may ask; None lets everybody.
    """
    endpoint, discovery = Endpoint(predictor, metrics), Discovery(predictor, ready)

    async def healthz(request: Request) -> Any:
        return {"status": "alive"}

    async def readyz(request: Request) -> Any:
        return {"status": "ready", **_describe(await discovery.ready())}

    async def openapi(request: Request) -> Any:
        try:
            model = await discovery.ready()
        except Unavailable:
            model = None
        document = openapi_document(predictor.config, model)
        return with_api_keys(document) if keys else document

    async def docs(request: Request) -> Response:
        return HTMLResponse(DOCS_PAGE, headers=PAGE_HEADERS)

    page_or_answer = _predicts(endpoint, HuggingFace())

    async def root(request: Request) -> Response:
        if request.method == "POST":
            return await page_or_answer(request)
        return HTMLResponse(TRY_PAGE, headers=PAGE_HEADERS)

    infer = _predicts(endpoint, V2())
    application = LayeredApplication(
        routes=[
            Route("/predict", _predicts(endpoint, Predict()), methods=POST),
            Route("/models/{model}/predict", _predicts(endpoint, Predict()), methods=POST),
            Route("/healthz", _tells(healthz)),
            Route("/readyz", _tells(readyz)),
            Route("/openapi.json", _tells(openapi)),
            Route("/docs", docs),
            Route("/", root, methods=["GET", "POST"]),
            Route("/models/{model}", _predicts(endpoint, HuggingFace()), methods=POST),
            Route("/v1/models/{model}:predict", _predicts(endpoint, V1()), methods=POST),
            Route("/v2/models/{model}/infer", infer, methods=POST),
            Route("/v2/models/{model}/versions/{version}/infer", infer, methods=POST),
            *_discovery_routes(discovery),
        ],
        exception_handlers={HTTPException: _http_error, RequestError: _request_error, Exception: _internal_error},
        limit_bytes=lambda: predictor.limits.body_bytes,
        keys=keys,
        on_refused=lambda: metrics.observe_request(401, "", 0.0, predictor.pending),
    )
    # From /predict/ it would send clients to whatever their header Host says.
    application.router.redirect_slashes = False
    return application


def _discovery_routes(discovery: Discovery) -> list[Route]:
    """Return the routes by which clients of a protocol find out what is served."""

    async def v1_models(request: Request) -> Any:
        return {"models": discovery.models()}

    async def model_ready(request: Request) -> Any:
        await discovery.ready(**request.path_params)
        return {"name": request.path_params["model"], "ready": True}

    async def v2_server(request: Request) -> Any:
        return discovery.server()

    async def v2_live(request: Request) -> Any:
        return {"live": True}

    async def v2_ready(request: Request) -> Any:
        await discovery.ready()
        return {"ready": True}

    async def v2_model(request: Request) -> Any:
        return await discovery.describe(**request.path_params)

    tells: dict[str, Tell] = {
        "/v1/models": v1_models,
        "/v1/models/{model}": model_ready,
        "/v2": v2_server,
        "/v2/health/live": v2_live,
        "/v2/health/ready": v2_ready,
        "/v2/models/{model}": v2_model,
        "/v2/models/{model}/ready": model_ready,
        "/v2/models/{model}/versions/{version}": v2_model,
        "/v2/models/{model}/versions/{version}/ready": model_ready,
    }
    return [Route(path, _tells(tell)) for path, tell in tells.items()]


def _predicts(endpoint: Endpoint, protocol: HttpProtocol) -> Handler:
    """Return the handler of a route where texts are answered."""

    async def predict(request: Request) -> Response:
        async def read() -> HttpRequest:
            protocol.check_headers(request.headers)
            body = await _read_body(request, endpoint.predictor.limits, endpoint.predictor.config.request_timeout_s)
            return HttpRequest(body, request.headers, request.path_params)

        return respond(await endpoint.answer(protocol, read, request.headers, lambda reply: reply.status))

    return predict


def _tells(tell: Tell) -> Handler:
    """Return the handler of a route that answers with a document."""

    async def answer(request: Request) -> Response:
        try:
            return respond(json_reply(await tell(request)))
        except RequestError as error:
            return error_response(error)

    return answer


async def _read_body(request: Request, limits: RequestLimits, limit_s: float) -> bytes:
    """Return the whole body.

    Raises:
        RequestError: 408, 413, or the client is gone.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limit_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limits.body_bytes:
                    chunks.append(chunk)
                elif size > DISCARD_BYTES:
                    raise body_too_large(limits, closes=True)
    except TimeoutError:
        raise BodyTooSlow(f"The body did not arrive within {limit_s} s; send it faster, or fewer texts.") from None
    except ClientDisconnect:
        raise RequestError("The client closed the connection.", status=CLIENT_CLOSED_REQUEST) from None
    if size > limits.body_bytes:
        raise body_too_large(limits)
    return b"".join(chunks)


def _describe(model: ModelInfo) -> dict[str, Any]:
    return {"version": model.version, "task": model.task, "pairs": model.pairs, "weights": model.weights}


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:100]  # request.url would read the header Host, which may be anything
    sentence = {
        404: f"There is nothing at {path}; send texts to POST /predict, or see GET /docs.",
        405: f"{request.method[:20]} is not allowed at {path}; GET /docs lists what is.",
    }.get(error.status_code, str(error.detail))
    return respond(json_reply({"error": sentence}, error.status_code, dict(error.headers or {})))


async def _internal_error(request: Request, error: Exception) -> Response:
    logger.error("%s failed", current(), exc_info=error)
    return respond(json_reply({"error": "The server failed on this request; its log says why."}, 500))
