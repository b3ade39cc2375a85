"""What lies around Ray Serve's own HTTP server, beside `layers`, which lies inside: Ray imports `middlewares` by name.

Ray names each request too: by the client's X-Request-Id, whatever that holds. Outside of Ray, a request has one name,
which is Ray's as well. Errors that Ray itself answers are plain text; they become JSON with one sentence.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier_serving.errors import RequestError
from luthier_serving.replica.request_context import RequestContext
from luthier_serving.replica.responses import error_response

_LONGEST_BYTES = 2000
_RETRY_S = 5
# As HAProxy says it: luthier_serving.haproxy, which the programs of Ray do not import.
_LOST = "The replica that had this request has ended; send the request again."


def middlewares() -> list[Middleware]:
    """Return them from the inside out: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names this function."""
    return [Middleware(LostReplicas), Middleware(PlainErrors), Middleware(RequestContext)]


class LostReplicas:
    """ASGI middleware that answers 502 where Ray has no answer: its proxy had sent the request to a replica that died.

    HAProxy then sends the request again: 502 is one of RAY_SERVE_HAPROXY_RETRY_ON, and no replica answers it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the application."""
        answered = False

        async def note(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await self._app(scope, receive, note)
        if scope["type"] == "http" and not answered:
            await error_response(RequestError(_LOST, status=502))(scope, receive, send)


class PlainErrors:
    """ASGI middleware that turns an error in plain text into JSON. Of other responses it sees the first message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the application."""
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            return await self._app(scope, receive, send)
        plain: Message | None = None
        body = b""

        async def send_sentence(message: Message) -> None:
            nonlocal plain, body
            if message["type"] == "http.response.start" and message["status"] >= 400 and _is_plain(message):
                plain = message
                return
            if plain is None:
                return await send(message)
            body += message.get("body", b"")[: _LONGEST_BYTES - len(body)]
            if not message.get("more_body", False):
                await _sentence(plain, body)(scope, receive, send)

        await self._app(scope, receive, send_sentence)


def _is_plain(start: Message) -> bool:
    types = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
    return not types or types[0].startswith(b"text/plain")


def _sentence(start: Message, body: bytes) -> ASGIApp:
    status = start["status"]
    text = " ".join(body.decode(errors="replace").split()).rstrip(".") or "The server failed on this request"
    if status >= 500 and "\n" in body.decode(errors="replace").strip():
        text = "The server failed on this request; its log says why"  # Ray answers with a traceback
    error = RequestError(f"{text}.", status=status)
    kept = {
        name.decode(): value.decode()
        for name, value in start.get("headers", ())
        if not name.lower().startswith(b"content-")
    }
    if status == 503 and not any(name.lower() == "retry-after" for name in kept):
        error.retry_after_s = _RETRY_S
    return error_response(error, kept)
