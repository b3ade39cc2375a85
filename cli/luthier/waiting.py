"""Waits for resources to become ready, by looking at them each second.

Looking again rather than watching: it survives an API server that restarts and a connection that sleeps, and it costs
three small requests a second while a person, or a pipeline, waits for one name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from luthier.errors import Stalled, TimedOut, Unreachable
from luthier.kinds import Resource
from luthier.overview import Overview
from luthier_api.reasons import ConditionType

T = TypeVar("T")
INTERVAL_S = 1.0
# An API server that is being upgraded is away for less.
_PATIENCE_S = 120.0


def looks(
    look: Callable[[], T], until: Callable[[T], bool], *, timeout_s: float | None = None, interval_s: float = INTERVAL_S
) -> Iterator[T]:
    """Return one look after the other, the last of which is the first that `until` holds for.

    Raises:
        TimedOut: if it never did.
        Unreachable: if nobody has answered for two minutes.
    """
    started = seen = time.monotonic()
    while True:
        try:
            found = look()
        except Unreachable:
            if time.monotonic() - seen > _PATIENCE_S or seen == started:
                raise
        else:
            seen = time.monotonic()
            yield found
            if until(found):
                return
        if timeout_s is not None and time.monotonic() - started > timeout_s:
            raise TimedOut(
                f"It did not become ready within {timeout_s:.0f} s; the work goes on: `luthier status` shows it."
            )
        time.sleep(interval_s)


def check_ready(*resources: Resource) -> None:
    """Say how it ended.

    Raises:
        Stalled: if one of them is stalled, with its own sentence.
    """
    for resource in resources:
        stalled = resource.condition(ConditionType.STALLED)
        if resource.is_true(ConditionType.STALLED) and stalled:
            raise Stalled(f"{resource.title}: {stalled.reason}: {stalled.message}")


def all_settled(found: Overview) -> bool:
    """Tell whether nothing more happens by itself."""
    return found.settled
