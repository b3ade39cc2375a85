"""What kopf's lists and watches go through, so that no answer of the API server ends or blinds them.

kopf retries a request a few times and then stops the whole operator; an unknown error in a watch, a 410 instead of an
event, a page of HTML or half a line end it at once; a watch that is closed at once is opened again at once. Here such a
request is made again, at the pace that the server bears, and such a watch becomes the one thing that kopf answers
with a new list: an event that says that it has expired.

kopf does not notice that an object is missing from a new list, so each new list is told to `relisted`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.client_reqrep import ClientRequest, ClientResponse

from luthier_operator.cluster.access import Access
from luthier_operator.cluster.pace import TROUBLE, Pace, retry_after_s

logger = logging.getLogger(__name__)

Relisted = Callable[[str], None]
"""Called with the path of objects that were listed once more."""

_BETWEEN_WATCHES_S = 1.0
_EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"to be listed again"}}\n'


class Watches:
    """A middleware of aiohttp for kopf's session, all of whose requests only read."""

    def __init__(self, access: Access, pace: Pace) -> None:
        """Say who we are with `access`, and keep to `pace`."""
        self._access, self._pace = access, pace
        self._begun: dict[str, float] = {}
        self._active: dict[str, float] = {}
        self._listed: set[str] = set()
        self._expired: set[str] = set()
        self._open: dict[str, ClientResponse] = {}
        self.relisted: Relisted = lambda path: None

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Make a request until there is an answer that kopf can live with."""
        path, watch = request.url.path, request.url.query.get("watch") == "true"
        if watch:
            await self._not_too_often(path)
        while (response := await self._attempt(request, handler, watch)) is None:
            pass
        if watch:
            response.content = _Events(response, self._is_expired(path), partial(self._heard, path))  # type: ignore[assignment]
            response.status = 200  # a 410 is told as an event
            self._open[path] = response
        elif path in self._listed:
            self.relisted(path)
        else:
            self._listed.add(path)
        return response

    def expire(self, path: str) -> None:
        """Have kopf list again: its watch has missed something."""
        self._expired.add(path)
        if path in self._open:
            self._open.pop(path).close()

    def watching(self, path: str) -> bool:
        """Tell whether kopf has listed what is under a path, and watches it."""
        return path in self._begun

    def dead(self, after_s: float) -> str | None:
        """Return a path that was watched, and that nobody has asked about or heard of for so long, if there is one.

        A watch that is told nothing is begun anew by kopf after a minute or so, and one that fails is tried again.
        """
        now = time.monotonic()
        return next((path for path, active in self._active.items() if now - active > after_s), None)

    async def _attempt(self, request: ClientRequest, handler: ClientHandlerType, watch: bool) -> ClientResponse | None:
        if watch:
            self._heard(request.url.path)
        await self._pace.turn()
        request.headers.update(await self._access.authorization())
        try:
            response = await handler(request)
            wrong = await self._wrong_with(response, watch)
        except aiohttp.ClientError as error:
            self._pace.failed()
            logger.warning("asking for %s again: %s", request.url.path, error or type(error).__name__)
            return None
        if wrong is None:
            self._pace.succeeded()
            return response
        self._pace.failed(retry_after_s(response.headers))
        response.close()
        logger.warning("asking for %s again: the API server answered %s", request.url.path, wrong)
        return None

    async def _wrong_with(self, response: ClientResponse, watch: bool) -> str | None:
        if response.status == 401:
            await self._access.refused()
            return "401, it does not accept the token"
        if response.status in TROUBLE or response.status >= 500:
            return str(response.status)
        if response.status == 200 and response.content_type != "application/json":
            return f"{response.content_type} instead of JSON; is another server in between?"
        if response.status == 200 and not watch and not (await response.read()).rstrip().endswith(b"}"):
            return "something that is not whole"
        return None

    async def _not_too_often(self, path: str) -> None:
        wait_s = self._begun.get(path, -_BETWEEN_WATCHES_S) + _BETWEEN_WATCHES_S - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._begun[path] = time.monotonic()

    def _heard(self, path: str) -> None:
        self._active[path] = time.monotonic()

    def _is_expired(self, path: str) -> Callable[[], bool]:
        def expired() -> bool:
            if path not in self._expired:
                return False
            self._expired.discard(path)
            return True

        return expired


class _Events:
    """The lines of a watch, as far as kopf can read them; then, where one cannot be read, that the watch has expired.

    It stands where aiohttp's stream stood, of which kopf uses only `iter_chunked`.
    """

    def __init__(self, response: ClientResponse, expired: Callable[[], bool], heard: Callable[[], None]) -> None:
        self._heard = heard
        self._content, self._gone, self._expired = response.content, response.status == 410, expired

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = b""
        if self._gone or self._expired():
            yield _EXPIRED
            return
        async for chunk in self._content.iter_chunked(size):
            self._heard()
            *lines, rest = (rest + chunk).split(b"\n")
            strange = next((line for line in lines if line and not _is_event(line)), None)
            if strange is not None:
                logger.warning("listing again: a watch was told %r", strange[:300])
                yield _EXPIRED
                return
            if lines:
                yield b"\n".join([*lines, b""])
            if self._expired():
                yield _EXPIRED
                return
        # What is left is half a line of a connection that was cut: kopf goes on from the last whole one.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


def _is_event(line: bytes) -> bool:
    return line.startswith(b'{"type":"') and not line.startswith(b'{"type":"ERROR"')
