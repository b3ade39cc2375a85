"""Carrying out a plan: the only code that makes the cluster different. Deletes, patches, applies, status, Events.

In that order, each as one request. What a write returned goes into the cache, so that the next reconcile sees it. A
plan that is cut off anywhere is simply made again.
"""

import logging
from collections.abc import Mapping
from typing import Any

from luthier_operator import metrics
from luthier_operator.cache import Cache
from luthier_operator.cluster import Cluster
from luthier_operator.observed import Meta
from luthier_operator.plan.types import Apply, EventNote, Plan
from luthier_operator.resources import merge_patch

logger = logging.getLogger(__name__)


class Applier:
    """Writes plans to the cluster."""

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        """Write there, and remember here."""
        self._cluster = cluster
        self._cache = cache

    async def carry_out(self, plan: Plan, meta: Meta, version: int, status: Mapping[str, Any], now: str) -> None:
        """Carry out a plan that was made for this version of the resource, whose status was this."""
        for delete in plan.deletes:
            self._cache.wrote(delete.kind, await self._cluster.delete(delete))
            self._tell(meta, "delete", delete.name)
        for patch in plan.patches:
            self._cache.wrote("Job", await self._cluster.patch(patch))
            self._tell(meta, "patch", patch.name)
        for apply in plan.applies:
            await self._apply(apply)
            self._tell(meta, "apply", apply.manifest["metadata"]["name"])
        if plan.status is not None:
            await self.write_status(meta, version, status, plan.status)
        for note in plan.events:
            await self.record(meta, note, now)

    async def write_status(self, meta: Meta, version: int, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Write what differs between two statuses, if the resource is still the one that was looked at."""
        if patch := merge_patch(before, after):
            self._cache.wrote(meta.kind, await self._cluster.patch_status(meta, str(version), patch))
            self._tell(meta, "status", str(after.get("phase", "")))

    async def record(self, meta: Meta, note: EventNote, now: str) -> None:
        """Write an Event."""
        await self._cluster.record(meta, note, now)
        self._tell(meta, "event", f"{note.reason}: {note.message}")

    async def _apply(self, apply: Apply) -> None:
        if apply.once:
            self._cache.wrote("Job", await self._cluster.create(apply.manifest))
        else:
            self._cache.wrote("RayService", await self._cluster.apply(apply.manifest))

    def _tell(self, meta: Meta, what: str, detail: str) -> None:
        metrics.WRITES.labels(what).inc()
        context = {"kind": meta.kind, "namespace": meta.namespace, "resource": meta.name, "generation": meta.generation}
        logger.info("%s %s", what, detail, extra=context)
