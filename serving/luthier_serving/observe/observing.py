"""Makes and ends what is configured, live, and reads what is read by the clock: queues, drift, the log's counts.

One for each replica. Whatever fails here is logged, and the server goes on without it.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from luthier_api.documents import (
    FEATURE_TITLES,
    DriftConfig,
    DriftReport,
    Feature,
    ObserveConfig,
    ReferenceDocument,
    RequestLogConfig,
    ServerConfig,
    TracingConfig,
    compare_profiles,
)
from luthier_serving.errors import RequestError
from luthier_serving.observe.drift import DriftWindows
from luthier_serving.observe.observer import Metrics, Observer
from luthier_serving.observe.request_log import RequestLog
from luthier_serving.observe.tracing import Tracing

TICK_S = 1.0
# So often drift is compared for its gauges: adding up takes about a millisecond.
DRIFT_TICKS = 10
# The report holds no more; there are two at most, the stable revision and a canary.
MOST_REVISIONS = 4

logger = logging.getLogger("ray.serve")
Reference = Callable[[str], Awaitable[ReferenceDocument | None]]
# {revision: (texts that wait, for how many seconds the oldest has)}
QueueStates = Mapping[str, tuple[int, float]]


class Gauges(Metrics, Protocol):
    """Where figures are put that are read by the clock."""

    def set_queue(self, revision: str, texts: int, oldest_s: float) -> None:
        """Set the depth of a revision's queue, and the age of what has waited longest."""

    def set_drift(self, revision: str, texts: int, figures: Mapping[Feature, float]) -> None:
        """Set how far a revision's texts and answers are from its reference, over so many texts."""

    def add_logged(self, written: int, dropped: int) -> None:
        """Count requests in the log since the last time."""


class Observing:
    """What is observed in one replica.

    Attributes:
        observer: is told of requests and batches.

    Args:
        metrics: where figures go.
        replica: unique name of the replica.
        queues: returns the state of each revision's queue.
        reference: returns the reference of a revision, or raises `RequestError` while it cannot be asked.
    """

    def __init__(self, metrics: Gauges, replica: str, queues: Callable[[], QueueStates], reference: Reference):
        self.observer = Observer(metrics)
        self._metrics, self._replica, self._queues, self._reference = metrics, replica, queues, reference
        self._references: dict[str, ReferenceDocument | None] = {}
        self._numbers = itertools.count(1)
        self._logged = (0, 0)
        self._revisions: Sequence[str] = ()
        self._shown: set[str] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def apply(self, server: ServerConfig) -> None:
        """Observe what this configuration says from now on; what it says as before goes on."""
        config = server.observe or ObserveConfig(namespace="")
        self._revisions = [route.revision for route in server.routes][:MOST_REVISIONS]
        self._apply_drift(config.drift)
        self._apply_log(config.request_log, f"{config.namespace}/{server.model_name}")
        await self._apply_tracing(config.tracing, f"{config.namespace}/{server.model_name}")
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick_for_ever())

    def report(self) -> dict[str, DriftReport] | None:
        """Return what drift is judged by, of the revisions whose reference is known, or known to be none."""
        drift = self.observer.drift
        if drift is None:
            return None
        known = {name: self._references[name] for name in self._revisions if name in self._references}
        return {
            name: DriftReport(
                reference=reference, recent=drift.profile(name, reference.label_names if reference else [])
            )
            for name, reference in known.items()
        }

    def close(self) -> None:
        """Write and send what waits; blocks for a few seconds at most. Ray calls it when no request is left."""
        log, tracing = self.observer.log, self.observer.tracing
        self.observer.log = self.observer.tracing = None
        if log:
            log.close()
        if tracing:
            tracing.close()

    async def tick(self, number: int) -> None:
        """Read what is read by the clock."""
        queues = self._queues()
        for revision, (texts, oldest_s) in queues.items():
            self._metrics.set_queue(revision, texts, oldest_s)
        for gone in self._shown - set(queues):
            # A gauge keeps its last value.
            self._metrics.set_queue(gone, 0, 0.0)
            if self.observer.drift:
                self._metrics.set_drift(gone, 0, dict.fromkeys(FEATURE_TITLES, 0.0))
        self._shown = set(queues)
        if log := self.observer.log:
            before, now = self._logged, (log.written, log.dropped)
            self._metrics.add_logged(now[0] - before[0], now[1] - before[1])
            self._logged = now
        if self.observer.drift:
            await self._learn_references()
            if number % DRIFT_TICKS == 0:
                self._compare(self.observer.drift)

    def _apply_drift(self, config: DriftConfig | None) -> None:
        before = self.observer.drift
        if config is None:
            self.observer.drift = None
        elif before is None or before.window_s != config.window_s:
            self.observer.drift = DriftWindows(config.window_s)
        else:
            before.keep(self._revisions)
        self._references = {name: found for name, found in self._references.items() if name in self._revisions}

    def _apply_log(self, config: RequestLogConfig | None, place: str) -> None:
        before = self.observer.log
        if before and before.config == config:
            return
        self.observer.log, self._logged = None, (0, 0)
        if before:
            self._end(before.close)
        if config:
            self.observer.log = RequestLog(config, place, self._replica, self._numbers)

    async def _apply_tracing(self, config: TracingConfig | None, name: str) -> None:
        before = self.observer.tracing
        if before and before.config == config:
            return
        self.observer.tracing = None
        if before:
            self._end(before.close)
        if config is None:
            return
        resource = {"service.name": name, "service.instance.id": self._replica}
        try:
            # Its libraries take a fifth of a second to import.
            self.observer.tracing = await asyncio.to_thread(Tracing, config, resource)
        except ImportError as error:
            logger.warning("nothing is traced: this server image lacks %s; use an image of this release", error.name)
        except Exception:
            logger.exception("nothing is traced: traces to %s cannot be set up", config.endpoint)

    def _end(self, close: Callable[[], None]) -> None:
        """End what is not wanted any more, off the event loop."""
        task = asyncio.create_task(asyncio.to_thread(close))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _tick_for_ever(self) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(TICK_S)
            try:
                await self.tick(number)
            except Exception:
                logger.exception("what is read by the clock cannot be read")

    async def _learn_references(self) -> None:
        for revision in self._revisions:
            if revision not in self._references:
                try:
                    self._references[revision] = await self._reference(revision)
                except (RequestError, KeyError):
                    continue  # it does not run yet, and is asked again

    def _compare(self, drift: DriftWindows) -> None:
        for revision in self._revisions:
            if reference := self._references.get(revision):
                recent = drift.profile(revision, reference.label_names)
                figures = {feature: psi for feature, (psi, _) in compare_profiles(reference, recent).items()}
                self._metrics.set_drift(revision, recent.texts, figures)
