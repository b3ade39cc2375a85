"""One run of the operator: the parts that live between kopf's start and its end, each made anew for each run.

kopf calls `start` before it watches, `connect` for the session that it watches with, and `stop` when it has ended. A
part that ends by itself ends the run.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import aiohttp

from luthier_operator.gather.pod_client import ProgressReader, ReportReader
from luthier_operator.gather.progress_poller import ProgressPoller
from luthier_operator.gather.server_poller import ServerPoller
from luthier_operator.kube import Access, Fence, KubeClient, Pace, fencing, keeping
from luthier_operator.kube.namespace_owner import NamespaceOwner
from luthier_operator.model.views import Key
from luthier_operator.ops import logs
from luthier_operator.ops.settings import Settings
from luthier_operator.reconcile import Reconciler
from luthier_operator.store.audit import Audit, BeginAnew
from luthier_operator.store.informers import Informers
from luthier_operator.store.store import Kind, Store
from luthier_operator.store.workqueue import WorkQueue

logger = logging.getLogger(__name__)
# Changes come in bursts: a Job, its pod, their first states, our own status told back. One reconcile sees it all.
_GATHER_S = 0.1
_BETWEEN_LOGINS_S = 1.0
_KOPF_HAS_BEGUN_S = 0.05
_ENDS_S = 30.0


class OperatorRun:
    """The parts of one run, and their start and end."""

    def __init__(
        self, settings: Settings, access: Access, fence: Fence, leads: asyncio.Event, take_signals: Callable[[], None]
    ) -> None:
        """Nothing runs yet. Work begins when `leads` is set; `take_signals` takes them back from kopf."""
        self._settings, self._access, self._leads, self._take_signals = settings, access, leads, take_signals
        self.over, self.why = asyncio.Event(), ""
        """Set to end the run, and why, if it must begin anew."""
        self._pace = Pace()
        self._kube = KubeClient(access, settings.request_timeout_s, [keeping(self._pace), fencing(fence)])
        self.store = Store()
        self.informers = Informers(self.store, self._wake, self._wake_soon)
        self._audit = Audit(
            self._kube,
            self.store,
            self.informers,
            settings.watch_namespaces,
            interval_s=settings.audit_interval_s,
            absent_s=min(settings.kuberay_retry_s, settings.kueue_retry_s),
        )
        self._progress = ProgressPoller(
            self.store, ProgressReader(), self._wake, interval_s=settings.progress_interval_s
        )
        self._servers = ServerPoller(ReportReader(), self._wake, interval_s=settings.report_interval_s)
        release = f"{settings.lease_namespace}/{settings.lease_name}" if settings.lease_name else ""
        self._owner = NamespaceOwner(self._kube, release)
        self._reconciler = Reconciler(
            self._kube, self.store, self._progress, self._servers, settings.defaults(), self._owner
        )
        self.queue: WorkQueue[Key] = WorkQueue(self._reconciler, workers=settings.workers, about=_about)
        self._connected_at = self._stopped_at = 0.0
        self._parts: asyncio.Task[None] | None = None

    async def start(self, **_: Any) -> None:
        """Begin to work; kopf calls it before it watches."""
        self._parts = asyncio.create_task(self._work(), name="operator")
        self._parts.add_done_callback(self._ended)
        logger.info("started: %s", ", ".join(self._settings.watch_namespaces) or "all namespaces")

    async def connect(self) -> tuple[aiohttp.ClientSession, str]:
        """Return the session that kopf lists and watches with; asked again when its credentials are refused."""
        if self._connected_at:
            await asyncio.sleep(max(0.0, self._connected_at + _BETWEEN_LOGINS_S - time.monotonic()))
            await self._access.refused()
        self._connected_at = time.monotonic()
        session = self._access.session([keeping(self._pace)])
        return session, self._access.server

    async def stop(self, **_: Any) -> None:
        """Stop, once: what takes long is cut off, which is safe at any point."""
        if self._stopped_at:
            return
        self.over.set()  # or kopf, where it ends for another reason, waits for whoever waits for this
        self._stopped_at = time.monotonic()
        await _end_watches()
        await self.queue.drain(self._settings.shutdown_s)
        if self._parts:
            self._parts.cancel()
            await asyncio.gather(self._parts, return_exceptions=True)  # why it ended by itself has been said
        await self._progress.close()
        await self._servers.close()
        await self._kube.close()

    def listed(self, kind: Kind) -> None:
        """Take note that kopf lists a kind."""
        self._audit.relisted(kind)

    @property
    def stuck(self) -> str | None:
        """What does not end though it should, if anything: a reconcile, or kopf."""
        # Every request has its own time-out, so a reconcile of several requests that takes this long is stuck.
        now = time.monotonic()
        if self._stopped_at and now - self._stopped_at > _ENDS_S:
            return "the watches do not end"
        for key, since in self._reconciler.since.items():
            if now - since > self._settings.stuck_s:
                return f"the reconcile of the {key.kind} {key.namespace}/{key.name} is stuck for {now - since:.0f} s"
        return None

    @property
    def unready(self) -> str | None:
        """Why nothing can be reconciled yet, if it cannot."""
        unsettled = self._audit.unsettled
        return f"the {unsettled} have not been listed yet" if unsettled else None

    async def _work(self) -> None:
        """Reconcile as soon as all is known that there is, and this process leads; until then, keys wait."""
        await asyncio.sleep(_KOPF_HAS_BEGUN_S)
        self._take_signals()
        await self._audit.settle()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._audit.run(), name="audit")
            await self._leads.wait()
            group.create_task(self.queue.run(), name="workers")
            group.create_task(self._owner.run(), name="namespaces")

    def _ended(self, parts: asyncio.Task[None]) -> None:
        """End the run when its parts have ended by themselves."""
        if parts.cancelled() or self.over.is_set():
            return
        error = parts.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, BeginAnew):
            logger.critical("a part of the operator has ended by itself", exc_info=error)
        self.why = str(error) or type(error).__name__
        self.over.set()

    def _wake(self, key: Key) -> None:
        self.queue.wake(key)

    def _wake_soon(self, key: Key) -> None:
        self.queue.wake_after(key, _GATHER_S)


async def _end_watches() -> None:
    """End kopf's watches. Where one of them has failed, kopf leaves the others running.

    Later it would cancel them together with the tasks by which they notice a pause. One that is just asking for its
    watch then takes the cancellation for a pause and goes on for ever (kopf 1.45, `clients.api.stream`).
    """
    watches = [task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for ")]
    for task in watches:
        task.cancel()
    await asyncio.gather(*watches, return_exceptions=True)


def _about(key: Key) -> AbstractContextManager[None]:
    return logs.about(kind=key.kind, namespace=key.namespace, resource=key.name)
