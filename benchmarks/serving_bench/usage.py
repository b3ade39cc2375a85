"""CPU and memory of a server: of every process that it has, found by the mark in its environment or by its parent."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from luthier_dev.processes import OWNER, PROGRAM, owned, owner_mark

SCOPE = "serving-bench"
# The server has a core of its own; the load generator and this process have the other.
SERVER_CORE, LOAD_CORE = 0, 1
_PAUSE_S = 0.5


def mark(program: str) -> dict[str, str]:
    """Return the environment by which a process and its children are found."""
    return {OWNER: owner_mark(SCOPE), PROGRAM: program}


@contextmanager
def on_cores(*cores: int) -> Iterator[None]:
    """Give processes that are started meanwhile these cores; their own children inherit them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(core: int) -> None:
    """Move every thread of the server to one core; what they start later inherits it."""
    for process in processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, {core})


def processes() -> list[psutil.Process]:
    """Return the server's processes. One that has rewritten its title may have lost its mark, but not its parent."""
    found = {each.pid: each for each in owned(SCOPE)}
    for each in list(found.values()):
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {child.pid: child for child in each.children(recursive=True)}
    return list(found.values())


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of each process, by pid and start time, at one moment."""

    at: float
    seconds: dict[tuple[int, float], float]

    def since(self, earlier: Cpu) -> float:
        """Seconds used since then; of a process that ended meanwhile the last part is missing."""
        return sum(used - earlier.seconds.get(key, 0.0) for key, used in self.seconds.items())

    def share_since(self, earlier: Cpu) -> float:
        """Share of one core."""
        return self.since(earlier) / (self.at - earlier.at)


def read_cpu() -> Cpu:
    """Read the CPU time of every process."""
    seconds = {}
    for each in processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            seconds[each.pid, each.create_time()] = times.user + times.system
    return Cpu(time.monotonic(), seconds)


def idle_share(seconds: float) -> float:
    """Return the share of a core that the server takes while nobody asks it anything."""
    before = read_cpu()
    time.sleep(seconds)
    return read_cpu().share_since(before)


def wait_until_quiet(most_share: float, timeout_s: float) -> None:
    """Return once the server takes no more than this, twice in a row, or after the time at the latest."""
    deadline, quiet, before = time.monotonic() + timeout_s, 0, read_cpu()
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
        now = read_cpu()
        quiet = quiet + 1 if now.share_since(before) <= most_share else 0
        before = now


def memory_mib() -> dict[str, float]:
    """Return the proportional set size by name of process: memory that processes share is counted once."""
    found: dict[str, float] = {}
    for each in processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            name = each.name().partition(" ")[0]
            found[name] = round(found.get(name, 0.0) + each.memory_full_info().pss / 2**20, 1)
    return found
