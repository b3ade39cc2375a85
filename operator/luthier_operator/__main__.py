"""`python -m luthier_operator`: read the settings, connect, watch, and reconcile until told to stop."""

import argparse
import asyncio
import logging
import os
import secrets
import socket
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import kopf

from luthier_operator import handlers, logs, metrics
from luthier_operator.audit import Audit
from luthier_operator.cache import Cache
from luthier_operator.cluster import Access, Cluster, Fence, Pace, Watches, counting, fencing
from luthier_operator.lease import Leadership
from luthier_operator.observed import Key
from luthier_operator.polling import ProgressPoller
from luthier_operator.progress import ProgressReader
from luthier_operator.reconcile import Reconciler
from luthier_operator.settings import Settings, SettingsError
from luthier_operator.web import Endpoint
from luthier_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)
# What happens comes in bursts: a Job, its pod, their first states, our own status told back. One reconcile sees it all.
_GATHER_S = 0.1
# KubeRay's and Kueue's kinds may be missing.
_ALWAYS_THERE = ("FineTuneJob", "ModelDeployment", "Job", "Pod")
# A watch that is told nothing is begun anew after 70 s, and one that fails after a minute at the most.
_DEAD_S = 300.0


class Operator:
    """The running parts, and their start and end."""

    def __init__(self, settings: Settings) -> None:
        """Nothing runs yet."""
        self._settings = settings
        self._cache = Cache()

    def registry(self) -> kopf.OperatorRegistry:
        """Return kopf's registry with all handlers."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        kopf.on.startup(registry=registry)(self.start)
        kopf.on.cleanup(registry=registry)(self.stop)
        self._told = handlers.register(registry, self._cache, self._heard)
        return registry

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        """Connect and start the workers; kopf calls it before it watches."""
        handlers.configure(settings)
        self._access, self._pace = await Access.from_environment(), Pace()
        fence = Fence(lambda: _end("A write was about to leave without the Lease."))
        traces = [counting(), fencing(fence)]
        self._cluster = Cluster(self._access, self._pace, self._settings.request_timeout_s, traces)
        self._leadership = self._leadership_of(self._settings, fence)
        self._watches = Watches(self._access, self._pace)
        self._audit = self._audit_of(self._settings)
        self._watches.relisted = self._audit.relisted
        self._progress = ProgressPoller(
            self._cache, ProgressReader(), self._wake, interval_s=self._settings.progress_interval_s
        )
        self._reconciler = Reconciler(self._cluster, self._cache, self._settings.defaults(), self._progress)
        self._queue: WorkQueue[Key] = WorkQueue(self._reconciler, workers=self._settings.workers, about=_about)
        self._measure()
        self._work = asyncio.create_task(self._lead(), name="work queue")
        self._auditing = asyncio.create_task(self._audit.run(), name="audit")
        self._endpoint = Endpoint(self._alive, self._ready)
        await self._endpoint.start(self._settings.http_host, self._settings.http_port)
        logger.info("started: %s", self._settings.watch_namespaces or "all namespaces")

    async def stop(self, **_: Any) -> None:
        """Stop: what takes long is cut off, which is safe at any point, and the Lease goes to who stands by."""
        await self._queue.drain(self._settings.shutdown_s)
        tasks = (self._auditing, self._work)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):  # it is why we are told to stop; the Lease is given back all the same
                logger.error("ended by itself: %s", ended, exc_info=ended)
        if self._leadership:
            await self._leadership.close()
        await self._progress.close()
        await self._cluster.close()
        await self._endpoint.close()
        logger.info("stopped")

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """Return what kopf lists and watches with."""
        session = self._access.session(self._watches, traces=[counting()])
        return kopf.AiohttpSession(aiohttp_session=session, server=self._access.server)

    async def _lead(self) -> None:
        """Work for as long as this operator leads; keys that are woken before wait in the queue."""
        async with asyncio.TaskGroup() as group:
            if self._leadership:
                await self._leadership.win()
                group.create_task(self._leadership.keep(), name="lease")
            metrics.LEADER.set(1)
            await self._told.beginning.wait(lambda: self._unwatched() is None)
            group.create_task(self._queue.run(), name="workers")

    def _leadership_of(self, settings: Settings, fence: Fence) -> Leadership | None:
        if not settings.lease_name:
            return None
        # A connection of its own, and less patience: a renewal must not wait for anything else.
        cluster = Cluster(self._access, Pace(), settings.lease_deadline_s / 2, [counting()])
        # A container that is started again in its pod is another process, which the Lease does not know.
        identity = f"{settings.pod_name or socket.gethostname()}_{secrets.token_hex(4)}"
        where = (settings.lease_namespace, settings.lease_name)
        return Leadership(cluster, fence, *where, identity, settings.terms(), _end)

    def _measure(self) -> None:
        metrics.QUEUE_DEPTH.set_function(lambda: self._queue.depth)
        metrics.QUEUE_AGE.set_function(lambda: self._queue.oldest_s)
        metrics.Resources(self._cache.phases)

    def _audit_of(self, settings: Settings) -> Audit:
        watched, interval_s = handlers.watched(settings.watch_namespaces), settings.audit_interval_s
        return Audit(self._cluster, self._cache, watched, self._wake, self._watches.expire, interval_s=interval_s)

    def _wake(self, key: Key) -> None:
        self._queue.wake(key)

    def _heard(self, key: Key) -> None:
        self._queue.wake_after(key, _GATHER_S)

    def _alive(self) -> str | None:
        if self._work.done() or self._auditing.done():
            return "the work queue or the audit has ended"
        # Every request has its own time-out, so a reconcile of several requests that takes this long is stuck.
        stuck_s, now = self._settings.stuck_s, time.monotonic()
        for key, since in self._reconciler.since.items():
            if now - since > stuck_s:
                return f"the reconcile of the {key.kind} {key.namespace}/{key.name} is stuck for {now - since:.0f} s"
        dead = self._watches.dead(_DEAD_S)
        return f"nobody watches {dead} any more" if dead else None

    def _ready(self) -> str | None:
        if path := self._unwatched():
            return f"{path} is not watched yet"
        return self._leadership.trouble if self._leadership else None

    def _unwatched(self) -> str | None:
        wanted = (each for each in handlers.watched(self._settings.watch_namespaces) if each.kind in _ALWAYS_THERE)
        return next((each.path for each in wanted if not self._watches.watching(each.path)), None)


def _about(key: Key) -> AbstractContextManager[None]:
    return logs.about(kind=key.kind, namespace=key.namespace, resource=key.name)


def _end(why: str) -> NoReturn:
    """End the process at once, so that nothing that is under way goes on beside another leader."""
    logger.critical("%s Ending, so that only one operator works.", why)
    os._exit(1)


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(prog="luthier_operator", description="The Kubernetes operator of Luthier.")
    parser.add_argument("--log-format", choices=("json", "text"), help="overrides LUTHIER_LOG_FORMAT")
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"luthier: {error}", file=sys.stderr)
        return 2
    logs.configure(arguments.log_format or settings.log_format, settings.log_level)
    operator = Operator(settings)
    namespaces = settings.watch_namespaces
    kopf.run(registry=operator.registry(), clusterwide=not namespaces, namespaces=namespaces, standalone=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
