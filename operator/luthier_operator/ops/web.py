"""The operator's own HTTP endpoint: /healthz, /readyz and /metrics.

Alive means that the event loop answers and that no reconcile has been at work for longer than a request may take many
times over; ready means that the watches have begun.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import REGISTRY, exposition


class Endpoint:
    """Serves health and metrics until closed."""

    def __init__(self, alive: Callable[[], str | None], ready: Callable[[], str | None]) -> None:
        """Each callable returns None when all is well, else one sentence that says what is not."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", lambda _: _answer(alive())),
                web.get("/readyz", lambda _: _answer(ready())),
                web.get("/metrics", _metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=0)

    async def start(self, host: str, port: int) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()


async def _answer(wrong: str | None) -> web.Response:
    return web.Response(text="ok\n") if wrong is None else web.Response(status=503, text=f"{wrong}\n")


async def _metrics(_: web.Request) -> web.Response:
    body = exposition.generate_latest(REGISTRY)
    return web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE_LATEST})
