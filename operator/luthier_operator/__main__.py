"""`python -m luthier_operator`: read the settings, connect, watch, and reconcile until told to stop."""

import argparse
import asyncio
import logging
import os
import sys
import time
from contextlib import suppress
from typing import Any

import kopf

from luthier_operator import handlers, logs
from luthier_operator.audit import Audit
from luthier_operator.cache import Cache
from luthier_operator.cluster import Access, Cluster, Pace, Watches
from luthier_operator.observed import Key
from luthier_operator.polling import ProgressPoller
from luthier_operator.progress import ProgressReader
from luthier_operator.reconcile import Reconciler
from luthier_operator.settings import Settings, SettingsError
from luthier_operator.web import Endpoint
from luthier_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)
# Every request has its own time-out, so a reconcile of several requests that takes this long is stuck.
_STUCK_S = 300.0


class Operator:
    """The running parts, and their start and end."""

    def __init__(self, settings: Settings) -> None:
        """Nothing runs yet."""
        self._settings = settings
        self._cache = Cache()
        self._started = False

    def registry(self) -> kopf.OperatorRegistry:
        """Return kopf's registry with all handlers."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        kopf.on.startup(registry=registry)(self.start)
        kopf.on.cleanup(registry=registry)(self.stop)
        handlers.register(registry, self._cache, self._wake)
        return registry

    async def start(self, settings: kopf.OperatorSettings, **indices: Any) -> None:
        """Connect and start the workers; kopf calls it before it watches."""
        handlers.configure(settings)
        self._cache.attach(handlers.indices_of(indices), handlers.workloads_of(indices))
        self._access, self._pace = await Access.from_environment(), Pace()
        self._cluster = Cluster(self._access, self._pace, self._settings.request_timeout_s)
        self._watches = Watches(self._access, self._pace)
        self._audit = self._audit_of(self._settings)
        self._watches.relisted = self._audit.relisted
        self._progress = ProgressPoller(
            self._cache, ProgressReader(), self._wake, interval_s=self._settings.progress_interval_s
        )
        self._reconciler = Reconciler(self._cluster, self._cache, self._settings.defaults(), self._progress)
        self._queue: WorkQueue[Key] = WorkQueue(self._reconciler, workers=self._settings.workers)
        self._work = asyncio.create_task(self._queue.run(), name="work queue")
        self._auditing = asyncio.create_task(self._audit.run(), name="audit")
        self._endpoint = Endpoint(self._alive, self._ready)
        await self._endpoint.start(self._settings.http_host, self._settings.http_port)
        self._started = True
        logger.info("started: %s", self._settings.watch_namespaces or "all namespaces")

    async def stop(self, **_: Any) -> None:
        """Stop the workers: whatever they are at can be cut off at any point and is made again."""
        for task in (self._auditing, self._work):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._progress.close()
        await self._cluster.close()
        await self._endpoint.close()
        logger.info("stopped")

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """Return what kopf lists and watches with."""
        return kopf.AiohttpSession(aiohttp_session=self._access.session(self._watches), server=self._access.server)

    def _audit_of(self, settings: Settings) -> Audit:
        watched, interval_s = handlers.watched(settings.watch_namespaces), settings.audit_interval_s
        return Audit(self._cluster, self._cache, watched, self._wake, self._watches.expire, interval_s=interval_s)

    def _wake(self, key: Key) -> None:
        self._queue.wake(key)

    def _alive(self) -> str | None:
        if self._work.done() or self._auditing.done():
            return "the work queue or the audit has ended"
        stuck = [key for key, since in self._reconciler.since.items() if time.monotonic() - since > _STUCK_S]
        return f"the reconcile of {stuck[0]} is stuck" if stuck else None

    def _ready(self) -> str | None:
        return None if self._started else "starting"


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
