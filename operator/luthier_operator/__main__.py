"""`python -m luthier_operator`: read the settings, connect, watch, and reconcile until told to stop."""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from contextlib import AbstractContextManager
from typing import NoReturn

from luthier_operator.gather.progress_client import ProgressReader
from luthier_operator.gather.progress_poller import ProgressPoller
from luthier_operator.kube import Access, Cluster, Fence, Pace, counting, fencing
from luthier_operator.kube.lease import Leadership
from luthier_operator.model.views import Key
from luthier_operator.ops import logs, metrics
from luthier_operator.ops.settings import Settings, SettingsError
from luthier_operator.ops.web import Endpoint
from luthier_operator.reconcile import Reconciler
from luthier_operator.store.audit import Audit
from luthier_operator.store.informers import Told
from luthier_operator.store.store import Cache
from luthier_operator.store.workqueue import WorkQueue

logger = logging.getLogger(__name__)
# Changes come in bursts: a Job, its pod, their first states, our own status told back. One reconcile sees it all.
_GATHER_S = 0.1
# A watch that is told nothing is begun anew after 70 s, and one that fails after a minute at the most.
_DEAD_S = 300.0


class Operator:
    """The running parts, and their start and end."""

    def __init__(self, settings: Settings, access: Access) -> None:
        """Nothing runs yet."""
        self._settings, self._access = settings, access
        fence = Fence(lambda: _end("A write was about to leave without the Lease."))
        self._cluster = Cluster(access, Pace(), settings.request_timeout_s, [counting(), fencing(fence)])
        self._leadership = self._leadership_of(settings, fence)
        cache = Cache()
        absent_s = min(settings.kuberay_retry_s, settings.kueue_retry_s)
        told = Told(cache, self._wake, self._wake_soon).watches(self._cluster, settings.watch_namespaces, absent_s)
        self._watches = [watch for _, watch in told]
        audited = [(kind, watch) for kind, watch in told if kind is not None]
        self._audit = Audit(self._cluster, cache, audited, interval_s=settings.audit_interval_s)
        self._progress = ProgressPoller(cache, ProgressReader(), self._wake, interval_s=settings.progress_interval_s)
        self._reconciler = Reconciler(self._cluster, cache, settings.defaults(), self._progress, self._forget)
        self._queue: WorkQueue[Key] = WorkQueue(self._reconciler, workers=settings.workers, about=_about)
        self._endpoint = Endpoint(self._alive, self._ready)
        metrics.QUEUE_DEPTH.set_function(lambda: self._queue.depth)
        metrics.QUEUE_AGE.set_function(lambda: self._queue.oldest_s)
        metrics.Resources(cache.phases)

    async def run(self) -> int:
        """Watch and reconcile until told to stop; return the exit status, which is 1 if a part ended by itself."""
        told_to_stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
        await self._endpoint.start(self._settings.http_host, self._settings.http_port)
        self._parts = [
            asyncio.create_task(self._lead(), name="work queue"),
            asyncio.create_task(self._audit.run(), name="audit"),
            *(asyncio.create_task(watch.run(), name=f"watch of {watch.watched}") for watch in self._watches),
        ]
        logger.info("started: %s", self._settings.watch_namespaces or "all namespaces")
        stop = asyncio.create_task(told_to_stop.wait())
        await asyncio.wait([stop, *self._parts], return_when=asyncio.FIRST_COMPLETED)
        ended = [part for part in self._parts if part.done()]
        for part in ended:
            logger.critical("the %s has ended by itself", part.get_name(), exc_info=part.exception())
        await self._stop()
        return 1 if ended else 0

    async def _stop(self) -> None:
        """Stop: what takes long is cut off, which is safe at any point, and the Lease goes to who stands by."""
        await self._queue.drain(self._settings.shutdown_s)
        for part in self._parts:
            part.cancel()
        await asyncio.gather(*self._parts, return_exceptions=True)  # why one ended by itself has been said
        if self._leadership:
            await self._leadership.close()
        await self._progress.close()
        await self._cluster.close()
        await self._endpoint.close()
        logger.info("stopped")

    async def _lead(self) -> None:
        """Work for as long as this operator leads; keys that are woken before wait in the queue."""
        async with asyncio.TaskGroup() as group:
            if self._leadership:
                await self._leadership.win()
                group.create_task(self._leadership.keep(), name="lease")
            metrics.LEADER.set(1)
            for watch in self._watches:
                await watch.settled()
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

    def _wake(self, key: Key) -> None:
        self._queue.wake(key)

    def _wake_soon(self, key: Key) -> None:
        self._queue.wake_after(key, _GATHER_S)

    def _forget(self, key: Key) -> None:
        self._queue.forget(key)

    def _alive(self) -> str | None:
        # Every request has its own time-out, so a reconcile of several requests that takes this long is stuck.
        stuck_s, now = self._settings.stuck_s, time.monotonic()
        for key, since in self._reconciler.since.items():
            if now - since > stuck_s:
                return f"the reconcile of the {key.kind} {key.namespace}/{key.name} is stuck for {now - since:.0f} s"
        dead = next((watch for watch in self._watches if watch.quiet_s > _DEAD_S), None)
        return f"nobody watches the {dead.watched} any more" if dead else None

    def _ready(self) -> str | None:
        for watch in self._watches:
            if not watch.listed and not watch.watched.optional:
                return f"the {watch.watched} have not been listed yet"
        return self._leadership.trouble if self._leadership else None


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
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    return await Operator(settings, await Access.from_environment()).run()


if __name__ == "__main__":
    sys.exit(main())
