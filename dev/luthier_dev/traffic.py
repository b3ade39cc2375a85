"""Sends a few requests a second and counts the answers, so that the demo and the tests see whether a rollout loses any.

Owns the requests and their counts. Sends only to the URL that it is given, a few a second, and stops with its block.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

VERSION_HEADER = "x-luthier-version"


@dataclass
class Answers:
    """Counts of the answers so far."""

    by_version: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    @property
    def total(self) -> int:
        """Requests sent."""
        return sum(self.by_version.values()) + len(self.failures)


class Trickle:
    """Requests to one URL from a thread, as a context manager."""

    def __init__(self, url: str, text: str, *, per_second: float = 10.0) -> None:
        """Prepare to POST {"text": text} to `url`/predict, `per_second` times a second."""
        self.answers = Answers()
        self._url = f"{url}/predict"
        self._text = text
        self._interval_s = 1.0 / per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self._stop.wait(self._interval_s):
                self._ask(client)

    def _ask(self, client: httpx.Client) -> None:
        started = time.monotonic()
        try:
            answer = client.post(self._url, json={"text": self._text})
        except httpx.HTTPError as error:
            self.answers.failures.append(f"{type(error).__name__}: {error}")
            return
        self.answers.slowest_s = max(self.answers.slowest_s, time.monotonic() - started)
        if answer.status_code == httpx.codes.OK:
            self.answers.by_version[answer.headers.get(VERSION_HEADER, "?")] += 1
        else:
            self.answers.failures.append(f"{answer.status_code}: {answer.text[:200]}")
