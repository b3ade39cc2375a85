"""Answers for all training pods at once: each says that it is further than when it was asked before."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from aiohttp import web

from luthier_api.documents import TRAINER_PORT, ProgressDocument


class Answers:
    """The progress endpoint of every played pod, on loopback."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.given = 0
        self._started = time.monotonic()

    async def __aenter__(self) -> Answers:
        application = web.Application()
        application.router.add_get("/progress", self._progress)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", TRAINER_PORT).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _progress(self, request: web.Request) -> web.Response:
        self.given += 1
        step = int((time.monotonic() - self._started) * 10)
        document = ProgressDocument(
            stage="Training",
            step=step,
            total_steps=1_000_000,
            eta_seconds=100_000 - step / 10,
            examples_per_second=160.0,
            metrics={"loss": 0.25},
            updated_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        return web.Response(body=document.to_json().encode(), content_type="application/json")
