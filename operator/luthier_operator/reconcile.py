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
from typing import Literal

from luthier_api.batchprediction import BatchPredictionSpec, BatchPredictionStatus
from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_api.reasons import Reason
from luthier_operator.apply import Applier, Writes
from luthier_operator.gather.batchprediction import BatchPredictionGatherer
from luthier_operator.gather.finetunejob import FineTuneJobGatherer
from luthier_operator.gather.modeldeployment import ModelDeploymentGatherer
from luthier_operator.gather.progress_poller import ProgressPoller
from luthier_operator.gather.server_poller import ServerPoller
from luthier_operator.kube import Gone, KubeClient, QuotaExceeded, Refused, Transient, Unexpected
from luthier_operator.kube.namespace_owner import LOOK_AGAIN_S, NamespaceOwner
from luthier_operator.model.actions import EventNote
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.parse import meta_of
from luthier_operator.model.resources import (
    BatchPredictionResource,
    FineTuneJobResource,
    ModelDeploymentResource,
    Unreadable,
    read_spec,
    read_status,
)
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import Key, Raw, Refusal
from luthier_operator.ops import logs, metrics
from luthier_operator.plan.batchprediction import policies as batchprediction
from luthier_operator.plan.batchprediction.policies import plan_batchprediction
from luthier_operator.plan.finetunejob import policies as finetunejob
from luthier_operator.plan.finetunejob.policies import plan_finetunejob
from luthier_operator.plan.modeldeployment import policies as modeldeployment
from luthier_operator.plan.modeldeployment.policies import plan_modeldeployment
from luthier_operator.store.store import Store, Stored
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
        kube: KubeClient,
        store: Store,
        progress: ProgressPoller,
        servers: ServerPoller,
        defaults: Defaults,
        owner: NamespaceOwner,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Read from the store and the cluster, write to the cluster, in namespaces that no other release owns."""
        self._owner, self._told = owner, set[Key]()
        self._store, self._defaults, self._clock = store, defaults, clock
        self._progress, self._servers = progress, servers
        self._applier = Applier(kube, store)
        self._finetunejobs = FineTuneJobGatherer(kube, store, progress, kueue_retry_s=defaults.kueue_retry_s)
        self._modeldeployments = ModelDeploymentGatherer(kube, store, servers)
        self._batchpredictions = BatchPredictionGatherer(kube, store, progress, kueue_retry_s=defaults.kueue_retry_s)
        self.since: dict[Key, float] = {}
        """Reconciles at work, and since when (monotonic seconds)."""

    async def __call__(self, key: Key) -> float | Literal["gone"] | None:
        """Reconcile one resource; return after how many seconds to look again, if nothing happens before.

        `gone` says that there is no such resource.

        Raises:
            RetryLater: if the cluster could not be written to.
        """
        found = self._store.read(key.kind, key)
        if not found:
            self._progress.forget(key)
            self._servers.forget(key)
            return "gone"
        metrics.RECONCILES.labels(key.kind).inc()
        self.since[key] = time.monotonic()
        try:
            with metrics.DURATION.labels(key.kind).time():
                if other := await self._owner.other(key.namespace):
                    return await self._leave(key, found[0], other)
                self._told.discard(key)
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

    async def _leave(self, key: Key, item: Stored, other: str) -> float:
        """Leave a resource to the release that owns its namespace, and say so once."""
        if key not in self._told:
            text = (
                f"The release {other} of Luthier works in this namespace, so another one that watches it leaves this "
                "resource alone. Let one of them watch other namespaces (watchNamespaces), or uninstall it."
            )
            meta = meta_of(key.kind, json.loads(item.value))
            await self._applier.event(meta, EventNote(Reason.OTHER_RELEASE, text, True), rfc3339(self._clock()))
            logger.warning("event %s: %s", Reason.OTHER_RELEASE, text)
            self._told.add(key)
        return LOOK_AGAIN_S

    async def _reconcile(self, key: Key, item: Stored) -> float | None:
        raw = json.loads(item.value)
        steps = {
            "FineTuneJob": self._finetunejob,
            "ModelDeployment": self._modeldeployment,
            "BatchPrediction": self._batchprediction,
        }
        return await steps[key.kind](raw, item.version)

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
        observed, queues = await self._finetunejobs.observe(resource, now)
        plan = plan_finetunejob(resource, observed, now, self._defaults)
        if plan.assumes_gone:
            observed = await self._finetunejobs.observe_live(resource, queues)
            plan = plan_finetunejob(resource, observed, now, self._defaults)
        try:
            return queues.sooner(await writes.carry_out(plan))
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
        observed = await self._modeldeployments.observe(resource, now)
        plan = plan_modeldeployment(resource, observed, now, self._defaults)
        try:
            return await writes.carry_out(plan)
        except Refused as error:
            metrics.ERRORS.labels("refused").inc()
            observed = replace(observed, refused=_refusal(error))
        return await writes.carry_out(plan_modeldeployment(resource, observed, now, self._defaults))

    async def _batchprediction(self, raw: Raw, version: int) -> float | None:
        meta, now = meta_of("BatchPrediction", raw), self._clock()
        logs.learned(generation=meta.generation)
        status = read_status(BatchPredictionStatus, raw, meta)
        if status.run:
            logs.learned(run=status.run.name)
        writes = Writes(self._applier, meta, version, status, rfc3339(now))
        try:
            resource = BatchPredictionResource(meta, read_spec(BatchPredictionSpec, raw), status)
        except Unreadable as error:
            return await writes.carry_out(batchprediction.plan_unreadable(meta, status, str(error), now))
        observed, queues = await self._batchpredictions.observe(resource, now)
        plan = plan_batchprediction(resource, observed, now, self._defaults)
        try:
            return queues.sooner(await writes.carry_out(plan))
        except Refused as error:
            metrics.ERRORS.labels("refused").inc()
            observed = replace(observed, refused=_refusal(error))
        except Gone:
            if not plan.applies:
                raise  # the resource itself is gone
            observed = replace(observed, namespace_ending=True)
        return await writes.carry_out(plan_batchprediction(resource, observed, now, self._defaults))
