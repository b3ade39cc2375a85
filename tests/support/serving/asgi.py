"""A client of an ASGI application that may disconnect, which Starlette's own test client cannot."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from starlette.types import ASGIApp, Message


async def post_predict(
    app: ASGIApp,
    chunks: Iterable[bytes],
    *,
    disconnects: bool = False,
    headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
) -> tuple[int, Any]:
    """Send a body in chunks, the last of them only if the client stays; return the status and the answer's document."""
    end: Message = {"type": "http.disconnect"} if disconnects else {"type": "http.request", "body": b""}
    messages = chain(({"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks), [end])
    received: list[Message] = []

    async def receive() -> Message:
        for message in messages:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        received.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": list(headers),
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in received)
    return received[0]["status"], json.loads(body) if body else None
