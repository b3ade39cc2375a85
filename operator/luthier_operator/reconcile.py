"""One reconcile: gather what is, let `plan` decide, carry the plan out. The shell around the pure core.

It decides nothing itself. Which event woke a key does not matter here, and no state is kept but since when a reconcile
has been at work.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_operator.apply import Applier, Writes
from luthier_operator.gather.kueue import Queues
from luthier_operator.gather.pod_events import read_pod_events
from luthier_operator.gather.progress_poller import ProgressPoller
from luthier_operator.gather.versions_in_use import Served
from luthier_operator.kube import ApiNotInstalled, Cluster, Gone, QuotaExceeded, Refused, Transient, Unexpected
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.ownership import join
from luthier_operator.model.parse import job_view, meta_of, pod_view, rayservice_view
from luthier_operator.model.resources import (
    FineTuneJobResource,
    ModelDeploymentResource,
    Unreadable,
    read_spec,
    read_status,
)
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import FineTuneJobView, Key, Meta, Raw, Refusal
from luthier_operator.ops import logs, metrics
from luthier_operator.plan.finetunejob import policies as finetunejob
from luthier_operator.plan.finetunejob.policies import plan_finetunejob
from luthier_operator.plan.finetunejob.situation import ObservedRuns
from luthier_operator.plan.modeldeployment import policies as modeldeployment
from luthier_operator.plan.modeldeployment.policies import ObservedServing, plan_modeldeployment
from luthier_operator.store.store import Cache, Stored
from luthier_operator.store.workqueue import RetryLater

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time; the one place that asks for it."""
    return datetime.now(UTC)


def _refusal(error: Refused) -> Refusal:
    """Return the observation that the cluster did not accept what was planned; `plan` says what that means."""
    return Refusal(str(error), quota_exceeded=isinstance(error, QuotaExceeded))


class Reconciler:
    """Reconciles resources by key."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        defaults: Defaults,
        progress: ProgressPoller,
        forget: Callable[[Key], None],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Read from cache and cluster, write to the cluster. `forget` is told of what is not there any more."""
        self._cluster, self._cache, self._defaults = cluster, cache, defaults
        self._applier = Applier(cluster, cache)
        self._served = Served(cluster, cache)
        self._queues = Queues(cluster, cache, defaults.kueue_retry_s)
        self._progress, self._forget, self._clock = progress, forget, clock
        self.since: dict[Key, float] = {}
        """Reconciles at work, and since when (monotonic seconds)."""

    async def __call__(self, key: Key) -> float | None:
        """Reconcile one resource; return after how many seconds to look again, if nothing happens before.

        Raises:
            RetryLater: if the cluster could not be written to.
        """
        found = self._cache.read(key.kind, key)
        if not found:
            self._progress.forget(key)
            self._forget(key)
            return None
        metrics.RECONCILES.labels(key.kind).inc()
        self.since[key] = time.monotonic()
        try:
            with metrics.DURATION.labels(key.kind).time():
                return await self._reconcile(key, found[0])
        except Gone:
            return None  # the resource, or its namespace, is being removed
        except Transient as error:
            metrics.ERRORS.labels(type(error).__name__.lower()).inc()
            raise RetryLater(str(error), error.retry_after_s) from error
        except Refused as error:
            # Not even a condition can be written on a resource that is far from its schema, as after an upgrade.
            metrics.ERRORS.labels("refused").inc()
            raise RetryLater(str(error), self._defaults.refused_retry_s) from error
        except Unexpected:
            metrics.ERRORS.labels("unexpected").inc()
            raise
        finally:
            del self.since[key]

    async def _reconcile(self, key: Key, item: Stored) -> float | None:
        raw = json.loads(item.value)
        step = self._finetunejob if key.kind == "FineTuneJob" else self._modeldeployment
        return await step(raw, item.version)

    async def _finetunejob(self, raw: Raw, version: int) -> float | None:
        meta, now = meta_of("FineTuneJob", raw), self._clock()
        logs.learned(generation=meta.generation)
        status = read_status(FineTuneJobStatus, raw, meta)
        if status.current_run:
            logs.learned(run=status.current_run.name)
        writes = Writes(self._applier, meta, version, status, rfc3339(now))
        try:
            resource = FineTuneJobResource(meta, read_spec(FineTuneJobSpec, raw), status)
        except Unreadable as error:
            return await writes.carry_out(finetunejob.plan_unreadable(meta, raw, status, str(error), now))
        observed = replace(self._observe(meta), in_use=self._served.told(resource))
        observed = replace(observed, pod_events=await read_pod_events(self._cluster, resource, observed, now))
        heard = await self._queues.hear(meta.key, observed.jobs.own, now)
        observed = heard.added_to(observed)
        plan = plan_finetunejob(resource, observed, now, self._defaults)
        if plan.assumes_gone:
            live = replace(await self._observe_live(meta), in_use=await self._served.live(resource))
            observed = heard.added_to(live)
            plan = plan_finetunejob(resource, observed, now, self._defaults)
        try:
            return heard.sooner(await writes.carry_out(plan))
        except Refused as error:
            metrics.ERRORS.labels("refused").inc()
            observed = replace(observed, refused=_refusal(error))
        except Gone:
            if not plan.applies:
                raise  # the resource itself is gone
            logger.warning("nothing can be made any more in the namespace, which is being deleted")
            observed = replace(observed, namespace_ending=True)
        return await writes.carry_out(plan_finetunejob(resource, observed, now, self._defaults))

    async def _modeldeployment(self, raw: Raw, version: int) -> float | None:
        meta, now = meta_of("ModelDeployment", raw), self._clock()
        logs.learned(generation=meta.generation)
        status = read_status(ModelDeploymentStatus, raw, meta)
        writes = Writes(self._applier, meta, version, status, rfc3339(now))
        try:
            resource = ModelDeploymentResource(meta, read_spec(ModelDeploymentSpec, raw), status)
        except Unreadable as error:
            return await writes.carry_out(modeldeployment.plan_unreadable(meta, status, str(error), now))
        observed = await self._observe_serving(resource)
        plan = plan_modeldeployment(resource, observed, now, self._defaults)
        try:
            return await writes.carry_out(plan)
        except Refused as error:
            metrics.ERRORS.labels("refused").inc()
            observed = replace(observed, refused=_refusal(error))
        return await writes.carry_out(plan_modeldeployment(resource, observed, now, self._defaults))

    def _observe(self, meta: Meta) -> ObservedRuns:
        progress = self._progress.newest(meta)
        silent_s = self._progress.silent_s(meta)
        return ObservedRuns(join(meta.uid, self._cache.jobs(meta.key), self._cache.pods(meta.key)), progress, silent_s)

    async def _observe_live(self, meta: Meta) -> ObservedRuns:
        """Return what the API server itself says, which the watch may not have told yet."""
        selector = f"{names.FINETUNEJOB}={meta.name}"
        jobs = await self._cluster.list_by_label("batch/v1", "Job", meta.namespace, selector)
        pods = await self._cluster.list_by_label("v1", "Pod", meta.namespace, selector)
        return ObservedRuns(join(meta.uid, map(job_view, jobs), map(pod_view, pods)))

    async def _observe_serving(self, resource: ModelDeploymentResource) -> ObservedServing:
        meta = resource.meta
        rayservice, installed = self._cache.rayservice(meta.key), True
        if not self._cache.told("RayService", meta.key):
            # Is the kind known, and does somebody else have the name?
            try:
                raw = await self._cluster.get("ray.io/v1", "RayService", meta.namespace, meta.name)
                rayservice = rayservice_view(raw) if raw else None
            except ApiNotInstalled:
                installed = False
        followed = self._followed(resource)
        return ObservedServing(rayservice, followed, self._cache.pods(meta.key), kuberay_installed=installed)

    def _followed(self, resource: ModelDeploymentResource) -> FineTuneJobView | None:
        reference = resource.spec.model.fine_tune_job_ref
        key = Key("FineTuneJob", resource.meta.namespace, reference.name) if reference else None
        found = self._cache.read("FineTuneJob", key) if key else []
        if not found:
            return None
        raw = json.loads(found[0].value)
        meta = meta_of("FineTuneJob", raw)
        try:
            storage = read_spec(FineTuneJobSpec, raw).output
        except Unreadable:
            return None  # its own reconcile says so
        return FineTuneJobView(meta.name, storage, read_status(FineTuneJobStatus, raw, meta))
