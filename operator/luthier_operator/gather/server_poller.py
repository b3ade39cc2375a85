"""What server replicas say of themselves: each pod of a server is asked by a timer of its own, apart from reconciles.

A reconcile names the pods that it looks at and is told their newest answers without waiting. Its resource is woken when
something changes that decides: whether a replica answers, and what it holds. Counts change all the time and wake
nobody: whoever judges them comes back by itself. What a replica had counted when it ended is kept, since its successor
begins at zero. All of it is a cache, gone with the process.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from luthier_api.documents import ServerReport
from luthier_operator.model.views import Key, PodReport, PodView
from luthier_operator.ops import metrics

logger = logging.getLogger(__name__)
# So often is a pod asked at most that has not answered the last time.
_AFTER_SILENCE_S = 1.0
# Replicas of one server that have ended, of which the counts are kept.
_MOST_ENDED = 50


class Reader(Protocol):
    """Asks one pod."""

    async def read(self, ip: str) -> ServerReport | None:
        """Return what the pod at this address says, or None."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass
class _Asked:
    """A pod that is asked."""

    ip: str
    report: ServerReport | None = None
    last: ServerReport | None = None
    """The newest answer that was one."""
    answered: bool = False
    timer: asyncio.TimerHandle | None = None
    task: "asyncio.Task[None] | None" = None


class ServerPoller:
    """Asks the server pods of all resources that reconciles name, and remembers the newest answer of each."""

    def __init__(self, reader: Reader, wake: Callable[[Key], None], *, interval_s: float, slots: int = 64) -> None:
        """Ask each pod once in `interval_s`, at most `slots` at the same time."""
        self._reader, self._wake, self._interval_s = reader, wake, interval_s
        self._slots = asyncio.Semaphore(slots)
        self._asked: dict[Key, dict[str, _Asked]] = {}
        self._ended: dict[Key, deque[ServerReport]] = {}

    def reports(self, key: Key, pods: Sequence[PodView]) -> list[PodReport]:
        """Return the newest answers of these pods, and have them asked from now on; no others of this resource."""
        running = {pod.uid: pod for pod in pods if pod.ip and pod.phase == "Running" and not pod.deleting}
        asked = self._asked.setdefault(key, {})
        for uid in list(asked):
            if uid not in running or running[uid].ip != asked[uid].ip:
                gone = asked.pop(uid)
                self._stop(gone)
                self._keep(key, gone.last)
        for uid, pod in running.items():
            if uid not in asked:
                asked[uid] = _Asked(str(pod.ip))
                self._schedule(key, asked[uid], 0.0)
        if not asked:
            del self._asked[key]
        return [PodReport(running[uid].name, each.report) for uid, each in asked.items() if each.answered]

    def ended(self, key: Key) -> list[ServerReport]:
        """Return the last words of replicas that answer no more: of their counts nothing is lost."""
        silent = [each.last for each in self._asked.get(key, {}).values() if each.last and each.report is None]
        return [*self._ended.get(key, ()), *silent]

    def forget(self, key: Key) -> None:
        """Ask no more for this resource."""
        self._ended.pop(key, None)
        for each in self._asked.pop(key, {}).values():
            self._stop(each)

    async def close(self) -> None:
        """Stop asking."""
        tasks = [each.task for pods in self._asked.values() for each in pods.values() if each.task]
        for key in list(self._asked):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reader.close()

    def _keep(self, key: Key, report: ServerReport | None) -> None:
        if report is not None:
            self._ended.setdefault(key, deque(maxlen=_MOST_ENDED)).append(report)

    def _stop(self, each: _Asked) -> None:
        if each.timer:
            each.timer.cancel()
        if each.task:
            each.task.cancel()

    def _schedule(self, key: Key, each: _Asked, after_s: float) -> None:
        each.timer = asyncio.get_running_loop().call_later(after_s, self._start, key, each)

    def _start(self, key: Key, each: _Asked) -> None:
        each.timer = None
        each.task = asyncio.create_task(self._ask(key, each), name=f"report of {key}")
        each.task.add_done_callback(self._done)

    async def _ask(self, key: Key, each: _Asked) -> None:
        async with self._slots:
            answer = await self._reader.read(each.ip)
        changed = _decisive(answer) != _decisive(each.report)
        if answer and each.last and answer.replica != each.last.replica:
            self._keep(key, each.last)
        each.report, each.last = answer, answer or each.last
        # A pod that never answered has no server replica, or one of an image that does not report.
        each.answered = each.answered or answer is not None
        quick = answer is None and each.answered
        self._schedule(key, each, _AFTER_SILENCE_S if quick else self._interval_s)
        if changed:
            self._wake(key)

    def _done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            metrics.ERRORS.labels("bug").inc()
            logger.error("%s failed", task.get_name(), exc_info=error)


def _decisive(report: ServerReport | None) -> object:
    """Return what of a report decides anything."""
    if report is None:
        return None
    return (
        report.ready,
        report.window,
        tuple(report.models),
        report.api_keys,
        tuple(report.deaths.items()),
        report.oom_kills,
    )
