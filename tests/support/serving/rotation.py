"""API keys replaced while clients ask: those who always have a valid key, and those who never have one."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import Any

import aiohttp

from support.temporary_keys import MountedSecret

TEXT = {"text": "the film was good"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Clients:
    """Clients of a server at `url`, with their answers: {(who, status): how many}."""

    def __init__(self, url: str, trust: ssl.SSLContext | bool = True) -> None:
        self._url, self._trust = url, trust
        self._valid = ""
        self.answers: Counter[tuple[str, int]] = Counter()

    async def rotate(self, secret: MountedSecret, *keys: str) -> None:
        """Have the first key replaced by each of the others in turn, by way of both, while clients ask on."""
        self._valid, *others = keys
        secret.replace(old=self._valid)
        await self._known(self._valid, 200)
        stop = asyncio.Event()
        loading = asyncio.create_task(self._load(stop))
        for key in others:
            before = self._valid
            await self._more()
            secret.replace(old=before, new=key)
            await self._known(key, 200)
            self._valid = key
            await self._more()
            secret.replace(new=key)
            await self._known(before, 401)
        await self._more()
        stop.set()
        await loading

    def statuses(self) -> dict[str, set[int]]:
        """Return {who: with which statuses they were answered}."""
        return {who: {status for other, status in self.answers if other == who} for who, _ in self.answers}

    async def _load(self, stop: asyncio.Event) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            while not stop.is_set():
                for who, key in (("valid", self._valid), ("nobody", ""), ("stranger", "k9")):
                    group.create_task(self._ask(session, who, key))
                await asyncio.sleep(0.01)

    async def _ask(self, session: aiohttp.ClientSession, who: str, key: str) -> None:
        self.answers[who, await self._status(session, key)] += 1

    async def _status(self, session: aiohttp.ClientSession, key: str) -> int:
        headers = bearer(key) if key else {}
        async with session.post(self._url, json=TEXT, headers=headers, ssl=self._trust) as reply:
            document: Any = await reply.json()
            assert ("prediction" in document) is (reply.status == 200), document
            return reply.status

    async def _more(self, more: int = 40) -> None:
        """Wait until so many more requests with a valid key were answered."""
        wanted = self.answers["valid", 200] + more
        async with asyncio.timeout(60):
            while self.answers["valid", 200] < wanted:
                await asyncio.sleep(0.02)

    async def _known(self, key: str, status: int) -> None:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while await self._status(session, key) != status:
                await asyncio.sleep(0.05)
