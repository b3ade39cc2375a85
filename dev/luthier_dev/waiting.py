"""Waits for conditions; no other module of the workbench waits by sleeping.

Owns the loop and its deadline; what is waited for is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from luthier_dev.errors import NotReady


def wait_until(
    condition: Callable[[], str | None],
    what: str,
    timeout_s: float,
    interval_s: float = 0.2,
) -> None:
    """Call `condition` until it returns None.

    Args:
        condition: returns None once it holds, else a phrase that says what is missing; it may raise
            to give up.
        what: names what is waited for, for the message.
        timeout_s: how long to wait in all.
        interval_s: pause between two calls.

    Raises:
        NotReady: the time is up; the message ends with the last phrase.
    """
    deadline = time.monotonic() + timeout_s
    while (missing := condition()) is not None:
        if time.monotonic() > deadline:
            raise NotReady(f"{what} was not ready after {timeout_s:.0f} s: {missing}")
        time.sleep(interval_s)
