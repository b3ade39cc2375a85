"""kopf's side: what is watched, and whom each event wakes.

    FineTuneJob       itself, and the resources that follow it
    ModelDeployment   itself, and the FineTuneJob that it follows; so does a BatchPrediction
    Job, Pod          the resource that its labels name
    RayService        its ModelDeployment
    HTTPRoute, Ingress  the ModelDeployment that it leads to
    Workload          the resource whose Job waits in Kueue's queue

A handler keeps the event in the store and wakes keys of the work queue; it decides nothing, has no state of its own and
writes nothing. `on.event` handlers make kopf write no annotation, finalizer or status. All are coroutines: kopf runs a
plain function in another thread, and neither the store nor the queue is made for threads.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
import kopf

from luthier_operator.kube import Backoffs
from luthier_operator.model.views import Raw
from luthier_operator.ops import metrics
from luthier_operator.ops.settings import Settings
from luthier_operator.store.informers import WATCHED, Informers
from luthier_operator.store.store import Kind

logger = logging.getLogger(__name__)


class Run(Protocol):
    """One run of the operator: what kopf begins, connects and ends."""

    informers: Informers

    async def start(self, **_: Any) -> None:
        """Begin, before anything is watched."""

    async def connect(self) -> tuple[aiohttp.ClientSession, str]:
        """Return a session to list and watch with, and the URL of the API server."""

    async def stop(self, **_: Any) -> None:
        """End, when nothing is watched any more."""

    def listed(self, kind: Kind) -> None:
        """Take note that kopf lists a kind."""


def registry(run: Run) -> kopf.OperatorRegistry:
    """Return the handlers of one run of the operator."""
    handlers, informers = kopf.OperatorRegistry(), run.informers

    kopf.on.startup(registry=handlers)(run.start)
    kopf.on.cleanup(registry=handlers)(run.stop)

    @kopf.on.login(registry=handlers)
    async def connect(**_: Any) -> kopf.AiohttpSession:
        session, server = await run.connect()
        return kopf.AiohttpSession(aiohttp_session=session, server=server)

    @_on_event(handlers, run, "FineTuneJob")
    def finetunejob(raw: Raw, *, deleted: bool) -> None:
        informers.finetunejob(raw, deleted=deleted)

    @_on_event(handlers, run, "ModelDeployment")
    def modeldeployment(raw: Raw, *, deleted: bool) -> None:
        informers.follower("ModelDeployment", raw, deleted=deleted)

    @_on_event(handlers, run, "BatchPrediction")
    def batchprediction(raw: Raw, *, deleted: bool) -> None:
        informers.follower("BatchPrediction", raw, deleted=deleted)

    @_on_event(handlers, run, "Job")
    def job(raw: Raw, *, deleted: bool) -> None:
        informers.child("Job", raw, deleted=deleted)

    @_on_event(handlers, run, "Pod")
    def pod(raw: Raw, *, deleted: bool) -> None:
        informers.child("Pod", raw, deleted=deleted)

    @_on_event(handlers, run, "RayService")
    def rayservice(raw: Raw, *, deleted: bool) -> None:
        informers.child("RayService", raw, deleted=deleted)

    @_on_event(handlers, run, "HTTPRoute")
    def httproute(raw: Raw, *, deleted: bool) -> None:
        informers.child("HTTPRoute", raw, deleted=deleted)

    @_on_event(handlers, run, "Ingress")
    def ingress(raw: Raw, *, deleted: bool) -> None:
        informers.child("Ingress", raw, deleted=deleted)

    @_on_event(handlers, run, "Workload")
    def workload(raw: Raw, *, deleted: bool) -> None:
        informers.workload(raw, deleted=deleted)

    return handlers


Handle = Callable[..., None]


def _on_event(handlers: kopf.OperatorRegistry, run: Run, kind: Kind) -> Callable[[Handle], None]:
    """Have a function called for each event of a kind."""
    watched = WATCHED[kind]
    resource = (watched.group, watched.version, watched.plural) if watched.version else (watched.group, watched.plural)

    def register(handle: Handle) -> None:
        @kopf.on.event(*resource, id=kind, registry=handlers)
        async def on_event(event: kopf.RawEvent, **_: Any) -> None:
            if event["type"] is None:
                run.listed(kind)
            try:
                handle(event["object"], deleted=event["type"] == "DELETED")
            except Exception:  # of one object, which must not keep us from the others
                metrics.ERRORS.labels("bug").inc()
                logger.exception("a %s cannot be understood", kind)

    return register


def settings(ours: Settings) -> kopf.OperatorSettings:
    """Return kopf's settings: it lists and watches, patiently, and writes nothing."""
    found = kopf.OperatorSettings()
    for watched in WATCHED.values():
        if watched.selector:
            group, version, plural = watched.group, watched.version, watched.plural
            resource = (group, version, plural) if version else (group, plural)
            found.watching.label_selectors[resource] = watched.selector
    found.watching.chunk_size = 500
    found.watching.server_timeout = 290
    found.networking.request_timeout = ours.request_timeout_s
    found.networking.connect_timeout = found.watching.connect_timeout = min(ours.request_timeout_s, 10.0)
    found.networking.error_backoffs = Backoffs()
    found.networking.enforce_retry_after = True
    # Neither namespaces nor CustomResourceDefinitions are watched, which needs rights beyond the namespaces that the
    # operator works in. A kind that is installed later is found by the audit.
    found.scanning.disabled = True
    found.peering.standalone = True
    found.posting.enabled = False
    # kopf copies every object to find what a handler of changes would be called for; there is none.
    found.persistence.diffbase_storage = _NoDiffBase()
    # Each object that changes has a worker of its own, which keeps the last event for as long.
    found.queueing.idle_timeout = 0.5
    # It would count from the first restart on.
    found.process.ultimate_exiting_timeout = None
    return found


class _NoDiffBase(kopf.DiffBaseStorage):
    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise NotImplementedError("there is no handler of changes")
