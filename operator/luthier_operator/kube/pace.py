"""How fast the API server may be asked, by all requests of the operator together, kopf's included.

A server that is overloaded or away is left alone: as long as it asks for, or longer after each failure. Without this,
ten thousand keys that all fail would each try again on their own. kopf opens a watch that ends at once again at once,
so watches of the same path are held apart too.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import aiohttp

_FIRST_S = 0.1
_LONGEST_S = 5.0
_LONGEST_RETRY_AFTER_S = 60.0
_BETWEEN_WATCHES_S = 1.0

# Answers that say something of the server; a 500 mostly says something of one request, as when a webhook fails.
_TROUBLE = frozenset({429, 502, 503, 504})


class Pace:
    """When the next request may be sent."""

    def __init__(self) -> None:
        """Nothing is wrong yet."""
        self._failures = 0
        self._not_before = 0.0
        self._watched: dict[str, float] = {}

    async def turn(self, watch: str = "") -> None:
        """Wait until a request may be sent; `watch` is the path of one that watches."""
        while (wait_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        if watch:
            now = time.monotonic()
            opens_at = self._watched[watch] = max(now, self._watched.get(watch, 0.0) + _BETWEEN_WATCHES_S)
            await asyncio.sleep(opens_at - now)

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer."""
        if status in _TROUBLE:
            self.failed(retry_after_s(headers))
        elif status == 401:
            self.failed()
        else:
            self._failures = 0  # a wait that the server asked for still holds

    def failed(self, retry_after_s: float | None = None) -> None:
        """Leave the server alone, as long as it wants or longer each time. Failures at the same time count as one."""
        now = time.monotonic()
        if now >= self._not_before:
            self._failures += 1
            wait_s = min(_FIRST_S * 2 ** (self._failures - 1), _LONGEST_S) * random.uniform(0.8, 1.2)
            self._not_before = now + wait_s
        if retry_after_s:
            self._not_before = max(self._not_before, now + min(retry_after_s, _LONGEST_RETRY_AFTER_S))


def keeping(pace: Pace) -> aiohttp.TraceConfig:
    """Return what makes each request of a session wait for its turn, and learn from its answer."""

    async def begins(
        _: aiohttp.ClientSession, context: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        context.sent = False
        await pace.turn(request.url.path if "watch" in request.url.query else "")
        context.sent = True

    async def answered(_: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestEndParams) -> None:
        pace.answered(request.response.status, request.response.headers)

    async def failed(
        _: aiohttp.ClientSession, context: SimpleNamespace, request: aiohttp.TraceRequestExceptionParams
    ) -> None:
        if context.sent and isinstance(request.exception, (aiohttp.ClientError, OSError)):
            pace.failed()

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(begins)
    trace.on_request_end.append(answered)
    trace.on_request_exception.append(failed)
    return trace


class Backoffs:
    """The pauses before a request is made again and again, in seconds: longer each time, and never the last one."""

    def __iter__(self) -> Iterator[float]:
        """Begin with the shortest."""
        longest_s = _FIRST_S
        while True:
            yield longest_s * random.uniform(0.5, 1.0)
            longest_s = min(2 * longest_s, _LONGEST_S)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the server wants to be left alone; Kubernetes says so in whole seconds."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
