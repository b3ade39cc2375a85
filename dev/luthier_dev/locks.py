"""Keeps two runs under one LUTHIER_HOME, and two threads of one run, from doing the same thing at once.

Owns the lock files. The kernel drops a lock when its holder ends, however it ends, so none is ever stale.
"""

from __future__ import annotations

import collections
import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from luthier_dev import steps
from luthier_dev.paths import layout

_threads: dict[str, threading.Lock] = collections.defaultdict(threading.Lock)


@contextmanager
def locked(name: str, doing: str) -> Iterator[None]:
    """Hold the lock `name`; wait for it, saying so, where another run is `doing` it."""
    folder = layout().make(layout().home / "locks")
    with _threads[name], (folder / name).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            steps.say(f"Waiting: another run with the same LUTHIER_HOME is {doing}.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
