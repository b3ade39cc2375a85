"""Constant load on a server from several clients, with every answer checked: its label must be that of its version."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

from luthier_dev.traffic import VERSION_HEADER

TEXTS = ["good film", "the film was good", "a film", "the bad film"]


@dataclass(frozen=True)
class Answered:
    """One request that was answered: when (seconds since the load began), by which version, after how many seconds."""

    at: float
    version: str
    took_s: float


@dataclass
class Load:
    """Sends texts to a URL for as long as its block lasts, at a constant rate.

    Attributes:
        labels: {version: {text: label}} that answers must have; other versions are not expected.
    """

    url: str
    labels: dict[str, dict[str, str]]
    per_second: float = 20.0
    clients: int = 4
    texts: list[str] = field(default_factory=lambda: TEXTS)
    answers: list[Answered] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _began: float = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    @property
    def slowest_s(self) -> float:
        return max((each.took_s for each in self.answers), default=0.0)

    def versions(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """How many requests each version answered in a time of the load."""
        return Counter(each.version for each in self.answers if since <= each.at <= until)

    def _run(self, number: int) -> None:
        interval_s = self.clients / self.per_second
        with httpx.Client(timeout=60, trust_env=False) as client:
            due, count = time.monotonic() + interval_s * number / self.clients, number
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                due, count = max(due + interval_s, time.monotonic() - 1), count + 1
                self._ask(client, self.texts[count % len(self.texts)])

    def _ask(self, client: httpx.Client, text: str) -> None:
        started = time.monotonic()
        at = f"at {self.now:.1f} s"
        try:
            answer = client.post(f"{self.url}/predict", json={"text": text})
        except httpx.HTTPError as error:
            self.failures.append(f"{at}: {type(error).__name__}: {error} after {time.monotonic() - started:.1f} s")
            return
        version = answer.headers.get(VERSION_HEADER, "?")
        if answer.status_code != httpx.codes.OK:
            self.failures.append(f"{at}: {answer.status_code}: {answer.text[:200]}")
        elif answer.json().get("prediction") != self.labels.get(version, {}).get(text):
            self.failures.append(f"{at}: version {version} says {answer.json().get('prediction')} of {text!r}")
        else:
            self.answers.append(Answered(self.now, version, time.monotonic() - started))
