"""`python -m luthier_operator`: read the settings, and run the operator until told to stop.

kopf starts, connects, watches and ends a run of the operator. What kopf cannot live with ends the run; the supervisor
begins another one within seconds, with nothing of the old one but the Lease. So a run may end at any point and loses
nothing, and only what is wrong with the process itself, such as a Lease that was lost, ends the process.
"""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from typing import NoReturn

import kopf

from luthier_operator import handlers
from luthier_operator.kube import Access, Fence, KubeClient
from luthier_operator.kube.lease import Leadership
from luthier_operator.ops import logs, metrics
from luthier_operator.ops.settings import Settings, SettingsError
from luthier_operator.ops.web import Endpoint
from luthier_operator.run import OperatorRun

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
# A run that went on for so long was a good one.
_GOOD_RUN_S = 60.0


class Supervisor:
    """Has one run of the operator follow another; holds what outlives a run: the Lease and the endpoint."""

    def __init__(self, settings: Settings, access: Access) -> None:
        """Nothing runs yet."""
        self._settings, self._access = settings, access
        self._fence = Fence(lambda: _end("A write was about to leave without the Lease."))
        self._leadership = self._leadership_of(settings)
        self._leads = asyncio.Event()
        self._endpoint = Endpoint(self._alive, self._ready)
        self._stopping = asyncio.Event()
        self._run: OperatorRun | None = None
        metrics.QUEUE_DEPTH.set_function(lambda: self._run.queue.depth if self._run else 0)
        metrics.QUEUE_AGE.set_function(lambda: self._run.queue.oldest_s if self._run else 0.0)
        metrics.Resources(lambda kind: self._run.store.phases(kind) if self._run else ())
        metrics.Conditions(
            lambda kind: self._run.store.stalled(kind) if self._run else (),
            lambda: self._run.store.unavailable() if self._run else (),
        )

    async def run(self) -> None:
        """Run until told to stop."""
        self._take_signals()
        await self._endpoint.start(self._settings.http_host, self._settings.http_port)
        election = asyncio.create_task(self._lead(), name="lease")
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            begun = time.monotonic()
            why = await self._run_once()
            if self._stopping.is_set():
                break
            if time.monotonic() - begun > _GOOD_RUN_S:
                pause_s = _FIRST_PAUSE_S
            metrics.RESTARTS.inc()
            logger.warning("the watches ended and begin anew in %.1f s: %s", pause_s, why)
            await _wait(self._stopping, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        election.cancel()
        await asyncio.gather(election, return_exceptions=True)
        if self._leadership:
            await self._leadership.close()
        await self._endpoint.close()
        logger.info("stopped")

    async def _run_once(self) -> str:
        """Run until kopf ends; return why it did."""
        self._run = run = OperatorRun(self._settings, self._access, self._fence, self._leads, self._take_signals)
        if self._stopping.is_set():
            run.over.set()
        namespaces = self._settings.watch_namespaces
        try:
            await kopf.operator(
                registry=handlers.registry(run),
                settings=handlers.settings(self._settings),
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=run.over,
                # Without one, kopf asks the system for its user's name; an arbitrary uid in a container has none.
                identity="luthier",  # type: ignore[arg-type]
            )
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self._take_signals()
            await run.stop()  # kopf does not where it fails before it has begun
        if not run.why:  # kopf itself took a signal
            self._stopping.set()
        return run.why

    def _take_signals(self) -> None:
        """Take SIGTERM and SIGINT. kopf takes them for itself, and forgets one that comes when it is ending anyway."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        self._stopping.set()
        if self._run:
            self._run.over.set()

    async def _lead(self) -> None:
        """Win the Lease and keep it. A run works as soon as, and as long as, this process leads."""
        if self._leadership:
            await self._leadership.win()
        metrics.LEADER.set(1)
        self._leads.set()
        if self._leadership:
            await self._leadership.keep()

    def _leadership_of(self, settings: Settings) -> Leadership | None:
        if not settings.lease_name:
            return None
        # A connection of its own that keeps no pace, and less patience: a renewal must not wait for anything else.
        kube = KubeClient(self._access, settings.lease_deadline_s / 2)
        # A container that is started again in its pod is another process, which the Lease does not know.
        identity = f"{settings.pod_name or socket.gethostname()}_{secrets.token_hex(4)}"
        where = (settings.lease_namespace, settings.lease_name)
        return Leadership(kube, self._fence, *where, identity, settings.terms(), _end)

    def _alive(self) -> str | None:
        return self._run.stuck if self._run else None

    def _ready(self) -> str | None:
        if self._run is None or (unready := self._run.unready):
            return unready if self._run else "the watches have not begun yet"
        return self._leadership.trouble if self._leadership else None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


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
    asyncio.run(_supervise(settings))
    return 0


async def _supervise(settings: Settings) -> None:
    await Supervisor(settings, await Access.from_environment()).run()


if __name__ == "__main__":
    sys.exit(main())
