"""Bodies that are compressed: gzip is inflated on the way in, within the limit of a body and never beyond it.

Whoever reads the body sees it as if it had been sent so. What is wrong with it is raised as a `RequestError` where it
is read, so that it is answered and counted as any other mistake in a body.
"""

import zlib
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier_serving.errors import RequestError
from luthier_serving.replica.responses import error_response

# What is not wanted of a body is read to its end and discarded, up to this size: a client that is still sending when
# the connection closes sees a broken pipe instead of the answer.
DISCARD_BYTES = 32 * 1024 * 1024
_GZIP = (b"gzip", b"x-gzip")
# zlib's word for a stream with a gzip header, and with a window of any size.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class EncodedBodies:
    """ASGI middleware that inflates bodies with `Content-Encoding: gzip`, and rejects other encodings with 415."""

    def __init__(self, app: ASGIApp, limit_bytes: Callable[[], int]) -> None:
        """Inflate up to one byte more than `limit_bytes()`, from which whoever reads sees that it is too large."""
        self._app, self._limit_bytes = app, limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the application."""
        found = [value for name, value in scope.get("headers", ()) if name == b"content-encoding"]
        if not found:
            return await self._app(scope, receive, send)
        encoding = b",".join(found).strip().lower()
        if encoding in _GZIP:
            gone = (b"content-encoding", b"content-length")
            plain = {**scope, "headers": [each for each in scope["headers"] if each[0] not in gone]}
            await self._app(plain, _Inflating(receive, self._limit_bytes()), send)
        elif encoding in (b"", b"identity"):
            await self._app(scope, receive, send)
        else:
            name = encoding[:100].decode("ascii", "replace")
            error = RequestError(f"Content-Encoding is {name!r}; send the body plain, or with gzip.", status=415)
            await discard(receive)
            await error_response(error, {"Accept-Encoding": "gzip"})(scope, receive, send)


async def discard(receive: Receive) -> None:
    """Read a body to its end, or as far as is reasonable, and keep nothing of it."""
    size = 0
    while size <= DISCARD_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


class _Inflating:
    """A body's messages, inflated: as ASGI's `receive`.

    Once more than the limit has come out, what still arrives is passed over without being inflated.
    """

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive, self._limit_bytes = receive, limit_bytes
        self._left = limit_bytes + 1
        self._read = 0
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        body, more = message.get("body", b""), message.get("more_body", False)
        self._read += len(body)
        try:
            inflated = self._inflate(body, last=not more) if self._left else b""
        except RequestError:
            if more:
                await discard(self._receive)
            raise
        return {"type": "http.request", "body": inflated, "more_body": more and self._read <= DISCARD_BYTES}

    def _inflate(self, body: bytes, *, last: bool) -> bytes:
        """Return what a part of the body holds, at most so much that the limit is exceeded by one byte."""
        if self._read > self._limit_bytes:
            text = f"The compressed body is larger than {self._limit_bytes} bytes; send fewer or shorter texts."
            raise RequestError(text, status=413)
        if self._inflater.eof and body:
            raise _trailing()
        try:
            inflated = self._inflater.decompress(body, self._left)
        except zlib.error:
            text = "The body is not gzip, although its Content-Encoding says so; compress it anew."
            raise RequestError(text, status=400) from None
        self._left -= len(inflated)
        if self._inflater.unused_data:
            raise _trailing()
        if last and self._read and self._left and not self._inflater.eof:
            raise RequestError("The body ends in the middle of its gzip data; send all of it.", status=400)
        return inflated


def _trailing() -> RequestError:
    return RequestError("Something follows the gzip data of the body; send one gzip stream.", status=400)
