"""How fast the API server may be asked, all requests of the operator together.

A server that is overloaded or away is left alone: as long as it asks for, or longer after each failure. Without this,
ten thousand keys that all fail would each try again on their own.
"""

import asyncio
import random
import time
from collections.abc import Mapping

_FIRST_S = 0.1
_LONGEST_S = 5.0
_LONGEST_RETRY_AFTER_S = 60.0

TROUBLE = frozenset({429, 502, 503, 504})
"""Answers that say something of the server; a 500 mostly says something of one request, as when a webhook fails."""


class Pace:
    """When the next request may be sent."""

    def __init__(self) -> None:
        """Nothing is wrong yet."""
        self._failures = 0
        self._not_before = 0.0

    async def turn(self) -> None:
        """Wait until a request may be sent."""
        while (wait_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    def failed(self, retry_after_s: float | None = None) -> None:
        """Leave the server alone, as long as it wants or longer each time. Failures at the same time count as one."""
        now = time.monotonic()
        if now >= self._not_before:
            self._failures += 1
            wait_s = min(_FIRST_S * 2 ** (self._failures - 1), _LONGEST_S) * random.uniform(0.8, 1.2)
            self._not_before = now + wait_s
        if retry_after_s:
            self._not_before = max(self._not_before, now + min(retry_after_s, _LONGEST_RETRY_AFTER_S))

    def succeeded(self) -> None:
        """Forget the failures; a wait that the server asked for still holds."""
        self._failures = 0


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the server wants to be left alone; Kubernetes says so in whole seconds."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
