"""The fence: until when this process may write, checked at the last moment before a write leaves.

Neither the client library nor kopf has such a thing. It is looked at when the connection by which a write leaves has
been found, so that neither waiting for one, nor a second attempt on another, nor a process that was stopped meanwhile
lets a write out too late. Renewing the Lease is what opens the fence, so it does not have to pass.
"""

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import aiohttp

_LEASES = "/apis/coordination.k8s.io/"


def seconds() -> float:
    """Return a clock that only goes forward, and on Linux also while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class Fence:
    """Until when this process may write; for ever, unless somebody says otherwise."""

    def __init__(self, trespass: Callable[[], None], clock: Callable[[], float] = seconds) -> None:
        """`trespass` is called instead of a write that comes too late, and must not return."""
        self._trespass, self._clock = trespass, clock
        self.until = float("inf")

    @property
    def open(self) -> bool:
        """Whether a write may leave now."""
        return self._clock() < self.until

    def check(self) -> None:
        """Return only if a write may leave now."""
        if not self.open:
            self._trespass()
            raise AssertionError("a write came too late, and nobody stopped the process")


def fencing(fence: Fence) -> aiohttp.TraceConfig:
    """Return what lets no write of a session out while the fence is closed."""

    async def begins(
        _: aiohttp.ClientSession, context: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        context.fenced = request.method != "GET" and not request.url.path.startswith(_LEASES)

    async def leaves(_: aiohttp.ClientSession, context: SimpleNamespace, *__: object) -> None:
        if context.fenced:
            fence.check()

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(begins)
    trace.on_connection_create_end.append(leaves)
    trace.on_connection_reuseconn.append(leaves)
    return trace
