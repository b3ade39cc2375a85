"""A queue of keys: each is reconciled by one worker at a time, and no wake-up is lost.

A key that is woken while it is reconciled is reconciled again afterwards; one that is woken many times before its turn
comes is reconciled once. Failures put their key off, longer each time. Keys that are woken before anybody works wait.
Knows nothing of Kubernetes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, Literal, TypeVar

from luthier_operator.ops import metrics

K = TypeVar("K", bound=Hashable)
logger = logging.getLogger(__name__)


class RetryLater(Exception):
    """The reconcile could not finish; it is to be tried again, after `delay_s` or the queue's own back-off."""

    def __init__(self, message: str, delay_s: float | None = None) -> None:
        """Say why, and when."""
        super().__init__(message)
        self.delay_s = delay_s


class WorkQueue(Generic[K]):
    """Wake keys, and have them reconciled by a bounded number of workers."""

    def __init__(
        self,
        reconcile: Callable[[K], Awaitable[float | Literal["gone"] | None]],
        *,
        workers: int,
        first_delay_s: float = 0.2,
        longest_delay_s: float = 60.0,
        about: Callable[[K], AbstractContextManager[None]] = lambda key: nullcontext(),
    ) -> None:
        """`reconcile` returns after how many seconds it wants to be called again, if nothing wakes it before.

        Or `gone`, if what the key names does not exist: then nothing is remembered of it.

        `about` is entered around each attempt, and what is logged about it.
        """
        self._reconcile = reconcile
        self._workers = workers
        self._first_delay_s, self._longest_delay_s = first_delay_s, longest_delay_s
        self._waiting: asyncio.Queue[K] = asyncio.Queue()
        self._about = about
        # Each key that is to be reconciled, and when it was woken, oldest first.
        self._woken: dict[K, float] = {}
        self._active: set[K] = set()
        self._nobody_active = asyncio.Event()
        self._nobody_active.set()
        self._running_since: float | None = None
        self._closing = False
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def wake(self, key: K) -> None:
        """Have the key reconciled as soon as a worker is free and no other has it."""
        if key in self._woken:
            return
        self._woken[key] = time.monotonic()
        if key not in self._active:
            self._enqueue(key)

    def wake_after(self, key: K, delay_s: float) -> None:
        """Have the key reconciled later; of several such wishes the earliest holds."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer and timer.when() <= loop.time() + delay_s:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(delay_s, self._ring, key)

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return self._waiting.qsize()

    @property
    def oldest_s(self) -> float:
        """How long the key has waited that has waited longest, since there are workers; 0 without any."""
        if self._running_since is None or not self._woken:
            return 0.0
        return time.monotonic() - max(self._running_since, next(iter(self._woken.values())))

    async def run(self) -> None:
        """Work until cancelled."""
        self._running_since = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing more, and return when all that is under way has ended, or the time is up."""
        self._closing = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._nobody_active.wait()
        except TimeoutError:
            logger.warning("%d reconciles are cut off: they took longer than %g s", len(self._active), timeout_s)

    def _ring(self, key: K) -> None:
        self._timers.pop(key, None)
        self.wake(key)

    def _cancel_timer(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def _enqueue(self, key: K) -> None:
        self._waiting.put_nowait(key)

    async def _work(self) -> None:
        while True:
            key = await self._waiting.get()
            if self._closing:
                return
            del self._woken[key]
            self._active.add(key)
            self._nobody_active.clear()
            try:
                with self._about(key):
                    await self._attempt(key)
            finally:
                self._active.discard(key)
                if not self._active:
                    self._nobody_active.set()
                if key in self._woken:
                    self._enqueue(key)

    async def _attempt(self, key: K) -> None:
        try:
            again_s = await self._reconcile(key)
        except RetryLater as error:
            delay = self._back_off(key)
            delay = max(delay, error.delay_s) if error.delay_s else delay
            logger.info("%s: trying again in %.1f s: %s", key, delay, error)
            self.wake_after(key, delay)
        except Exception:
            metrics.ERRORS.labels("bug").inc()
            logger.exception("%s: the reconcile failed", key)
            self.wake_after(key, self._back_off(key))
        else:
            self._failures.pop(key, None)
            if again_s == "gone":
                self._cancel_timer(key)
            elif again_s is not None:
                self.wake_after(key, again_s)

    def _back_off(self, key: K) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(self._first_delay_s * 2**failures, self._longest_delay_s))
