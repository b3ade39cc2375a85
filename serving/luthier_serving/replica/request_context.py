"""How a request is named: its X-Request-Id, and the trace that it belongs to.

The id is the client's if it sends one that is fit for logs and headers, and else made here. Every response carries it,
and every log line about an error. The trace is that of a W3C `traceparent` header; spans are not made here.

While a request is answered, `current()` returns its names; between requests there are none.
"""

import re
import secrets
from contextvars import ContextVar
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER = "X-Request-Id"
_ID_HEADER = REQUEST_ID_HEADER.lower().encode()
_TRACE_HEADER = b"traceparent"
# Printable ASCII without spaces.
_ID = re.compile(rb"[!-~]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: a later version may go on after the flags, version 00 not.
_TRACE = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Trace(NamedTuple):
    """The trace of a request, and its parent's span in it.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: span of the caller, 16 hexadecimal digits.
        sampled: whether the caller records its spans.
    """

    trace_id: str
    parent_id: str
    sampled: bool


class RequestNames(NamedTuple):
    """What a request is called in responses, logs and traces."""

    request_id: str
    trace: Trace | None = None

    @property
    def log_fields(self) -> dict[str, str]:
        """Fields of a log line about the request."""
        return {"request_id": self.request_id} | ({"trace_id": self.trace.trace_id} if self.trace else {})

    def __str__(self) -> str:
        return f"request {self.request_id}" + (f" of trace {self.trace.trace_id}" if self.trace else "")


_current: ContextVar[RequestNames | None] = ContextVar("luthier_request", default=None)


def current() -> RequestNames | None:
    """Return the names of the request that is being answered; None outside of one."""
    return _current.get()


def parse_traceparent(value: bytes) -> Trace | None:
    """Return the trace that a header names; None if it is malformed, as the specification asks for."""
    found = _TRACE.fullmatch(value)
    if found is None or (found[1] == b"00" and found[5] is not None):
        return None
    return Trace(found[2].decode(), found[3].decode(), bool(int(found[4], 16) & 1))


class RequestContext:
    """ASGI middleware that names each request, outside of everything that may answer it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the application, and name the response."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        names, headers = _names_of(scope["headers"])
        request_id = names.request_id.encode()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [each for each in message.get("headers", ()) if each[0].lower() != _ID_HEADER]
                message = {**message, "headers": [*others, (_ID_HEADER, request_id)]}
            await send(message)

        token = _current.set(names)
        try:
            await self._app({**scope, "headers": headers}, receive, send_named)
        finally:
            _current.reset(token)


Headers = list[tuple[bytes, bytes]]


def _names_of(headers: Headers) -> tuple[RequestNames, Headers]:
    """Return the names of a request, and its headers with the id that it goes by: also Ray logs by that."""
    ids = [value for name, value in headers if name == _ID_HEADER]
    traces = [value for name, value in headers if name == _TRACE_HEADER]
    trace = parse_traceparent(traces[0]) if len(traces) == 1 else None
    if len(ids) == 1 and _ID.fullmatch(ids[0]):
        return RequestNames(ids[0].decode(), trace), headers
    made = secrets.token_hex(16)
    others = [each for each in headers if each[0] != _ID_HEADER]
    return RequestNames(made, trace), [*others, (_ID_HEADER, made.encode())]
