"""A steady stream of normal requests beside a storm, every answer checked, and the memory of the server meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from support.serving.local_ray import LocalRay

# What answers requests, by a part of its command line.
SERVER, HAPROXY = "ServeReplica:server", "haproxy"
TEXTS = ["the film was good", "bad", "good good film", "a b c d e f g"]


@dataclass
class Steady:
    """Asks for texts at a constant rate for as long as its block lasts.

    Attributes:
        url: of the server.
        answers: what the first answers to each text were; later ones must be the same.
        seconds: how long each answer took.
        failures: what else happened.
    """

    url: str
    per_second: float = 20.0
    answers: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._asked: set[asyncio.Task[None]] = set()
        for text in TEXTS:
            await self._ask(text)
        assert len(self.answers) == len(TEXTS), self.failures
        self.seconds.clear()
        self._stream = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.cancel()
        with suppress(asyncio.CancelledError):
            await self._stream
        await asyncio.gather(*self._asked)
        await self._session.close()

    @property
    def p99_s(self) -> float:
        return sorted(self.seconds)[max(0, round(0.99 * len(self.seconds)) - 1)] if self.seconds else float("inf")

    def __str__(self) -> str:
        return f"{len(self.seconds)} normal requests, {len(self.failures)} failed, p99 {self.p99_s * 1000:.0f} ms"

    async def _send(self) -> None:
        due, number = time.monotonic(), 0
        while True:
            # An open loop: the next one is sent whether or not the one before it was answered.
            task = asyncio.create_task(self._ask(TEXTS[number % len(TEXTS)]))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
            due, number = due + 1 / self.per_second, number + 1
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self, text: str) -> None:
        began = time.monotonic()
        try:
            async with self._session.post(f"{self.url}/predict", json={"text": text}) as reply:
                document, status = await reply.json(), reply.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return
        if status != 200 or document != self.answers.setdefault(text, document):
            self.failures.append(f"{status}: {document}")
        else:
            self.seconds.append(time.monotonic() - began)


@dataclass
class Memory:
    """Samples the resident memory of the server's replica and of HAProxy, in MB, once a second."""

    ray: LocalRay
    samples: list[dict[str, float]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self.samples.append(self.now())
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sampling.cancel()
        with suppress(asyncio.CancelledError):
            await self._sampling
        self.samples.append(self.now())

    def now(self) -> dict[str, float]:
        found = dict.fromkeys((SERVER, HAPROXY), 0.0)
        for pid in self.ray.processes():
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                # HAProxy's command line has its path first; others name its configuration in their environment only.
                name = SERVER if SERVER in command else HAPROXY if command.split(" ")[0].endswith("/haproxy") else ""
                if name:
                    found[name] += pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        return found

    def growth(self, name: str, since: float = 0.0) -> float:
        """How much more there is at the end than after this share of the time."""
        return self.samples[-1][name] - self.samples[int(since * (len(self.samples) - 1))][name]

    def peak(self, name: str) -> float:
        return max(sample[name] for sample in self.samples)

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {self.samples[0][name]:.0f} MB, at most {self.peak(name):.0f}, at the end "
            f"{self.samples[-1][name]:.0f}"
            for name in (SERVER, HAPROXY)
        )

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.samples.append(await asyncio.to_thread(self.now))
