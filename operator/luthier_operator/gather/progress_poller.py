"""Which pods are asked for their progress, when, and what they last said: apart from reconciles.

A reconcile says which resource it looks at, and is told the newest answer without waiting for one. Each pod is then
asked by a timer of its own, and its resource is woken only when a figure that is shown has changed. Pods that hang hold
slots, not reconciles; namespaces take their turns, and none may hold more than its share.

Nothing is asked before a reconcile, so only the replica at work asks. All of it is a cache: gone with the process.
"""

import asyncio
import logging
import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from luthier_api.documents import ProgressDocument
from luthier_operator.model.ownership import join
from luthier_operator.model.timestamps import EARLIEST
from luthier_operator.model.views import JobView, Key, Meta, PodView
from luthier_operator.ops import metrics
from luthier_operator.plan.finetunejob.status import figures, progress_of
from luthier_operator.store.store import Store

logger = logging.getLogger(__name__)
# However slowly a pod answers, it holds a slot for no more than this share of the time.
_SHARE = 1 / 30


class Reader(Protocol):
    """Asks one pod."""

    async def read(self, ip: str) -> ProgressDocument | None:
        """Return what the pod at this address says, or None."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass
class _Followed:
    """A resource with a pod that runs."""

    owner_uid: str
    pod_uid: str
    answer: ProgressDocument | None = None
    since: float = field(default_factory=time.monotonic)
    timer: asyncio.TimerHandle | None = None


def pod_to_ask(jobs: Iterable[JobView], pods: Iterable[PodView], owner_uid: str) -> PodView | None:
    """Return the newest running pod of a resource's live stage; of several nodes', the first one's.

    Any worker of a batch prediction knows what all have done.
    *prepare* may wait for another run, and its pod says for which. Labels can be forged and count for nothing: the
    pod's controller is a Job, and the Job's is the resource.
    """
    live = [job for job in join(owner_uid, jobs, pods).runs if job.live]
    asked = (pod for job in live for pod in job.pods if pod.index == 0 or job.stage == "predict")
    running = (pod for pod in asked if pod.phase == "Running" and pod.ip)
    return max(running, key=lambda pod: (pod.created_at or EARLIEST, pod.name), default=None)


class ProgressPoller:
    """Asks the pods of all resources that reconciles tell of, and remembers the newest answer of each."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        wake: Callable[[Key], None],
        *,
        interval_s: float,
        slots: int = 64,
        slots_per_namespace: int = 32,
    ) -> None:
        """Ask each pod once in `interval_s`, at most `slots` at the same time."""
        self._store, self._reader, self._wake = store, reader, wake
        self._interval_s = interval_s
        self._slots, self._slots_per_namespace = slots, slots_per_namespace
        self._followed: dict[Key, _Followed] = {}
        self._due: OrderedDict[str, deque[tuple[Key, _Followed]]] = OrderedDict()
        self._at_work: dict[asyncio.Task[None], Key] = {}

    def newest(self, meta: Meta) -> ProgressDocument | None:
        """Return what the resource's pod last said, and have it asked from now on, as long as it runs."""
        pod = self._pod(meta.key, meta.uid)
        if pod is None:
            self.forget(meta.key)
            return None
        followed = self._followed.get(meta.key)
        if followed is None or (followed.owner_uid, followed.pod_uid) != (meta.uid, pod.uid):
            self.forget(meta.key)
            followed = self._followed[meta.key] = _Followed(meta.uid, pod.uid)
            # Pods that are found at the same time, as after a start, are asked at times that differ.
            self._schedule(meta.key, followed, self._interval_s * (zlib.crc32(pod.uid.encode()) / 2**32))
        return followed.answer

    def silent_s(self, meta: Meta) -> float:
        """Return for how long the resource's pod has been asked and never answered."""
        followed = self._followed.get(meta.key)
        return 0.0 if followed is None or followed.answer else time.monotonic() - followed.since

    def forget(self, key: Key) -> None:
        """Ask no more for this resource."""
        followed = self._followed.pop(key, None)
        if followed and followed.timer:
            followed.timer.cancel()

    @property
    def asked(self) -> int:
        """How many pods are asked."""
        return len(self._followed)

    async def close(self) -> None:
        """Stop asking."""
        for key in list(self._followed):
            self.forget(key)
        self._due.clear()
        tasks = list(self._at_work)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._reader.close()

    def _pod(self, key: Key, owner_uid: str) -> PodView | None:
        return pod_to_ask(self._store.jobs(key), self._store.pods(key), owner_uid)

    def _schedule(self, key: Key, followed: _Followed, after_s: float) -> None:
        followed.timer = asyncio.get_running_loop().call_later(after_s, self._ring, key, followed)

    def _ring(self, key: Key, followed: _Followed) -> None:
        followed.timer = None
        self._due.setdefault(key.namespace, deque()).append((key, followed))
        self._fill_slots()

    def _fill_slots(self) -> None:
        """Give free slots to namespaces in turn, and in each to whoever has waited longest."""
        held = Counter(key.namespace for key in self._at_work.values())
        while len(self._at_work) < self._slots:
            namespace = next((each for each in self._due if held[each] < self._slots_per_namespace), None)
            if namespace is None:
                return
            key, followed = self._due[namespace].popleft()
            self._due.move_to_end(namespace)
            if not self._due[namespace]:
                del self._due[namespace]
            if self._followed.get(key) is followed:
                held[namespace] += 1
                task = asyncio.create_task(self._ask(key, followed), name=f"progress of {key}")
                self._at_work[task] = key
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._at_work[task]
        if not task.cancelled() and (error := task.exception()):
            metrics.ERRORS.labels("bug").inc()
            logger.error("%s failed", task.get_name(), exc_info=error)
        self._fill_slots()

    async def _ask(self, key: Key, followed: _Followed) -> None:
        """Ask once. The address is looked up only now: in the meantime another pod may have been given it."""
        pod = self._pod(key, followed.owner_uid)
        if pod is None or pod.uid != followed.pod_uid or pod.ip is None:
            self.forget(key)
            return
        begun = time.monotonic()
        try:
            answer = await self._reader.read(pod.ip)
        finally:
            took = time.monotonic() - begun
            if self._followed.get(key) is followed:
                self._schedule(key, followed, max(self._interval_s, took / _SHARE) - took)
        if self._followed.get(key) is followed and answer and _figures(answer) != _figures(followed.answer):
            followed.answer = answer
            self._wake(key)


def _figures(document: ProgressDocument | None) -> Sequence[object] | None:
    """Return what is shown of an answer and stands still when the training does: not its speed and its time left."""
    if document is None:
        return None
    shown = figures(progress_of(document)), document.waiting_for
    return *shown, document.checkpoint_step, document.resumed_from_step, document.storage_failure
