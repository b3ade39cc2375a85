"""Carrying out a plan: the only code that makes the cluster different. Deletes, patches, applies, status, Events.

In that order, each as one request. What a write returned goes into the store, so that the next reconcile sees it. A
plan that is cut off anywhere is simply made again.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier_api.base import ApiModel
from luthier_operator.kube import KubeClient, Refused
from luthier_operator.model import names
from luthier_operator.model.actions import Apply, Delete, EventNote, Manifest, Patch, Plan, Scale
from luthier_operator.model.merge_patch import merge_patch
from luthier_operator.model.views import Meta
from luthier_operator.ops import metrics
from luthier_operator.store.store import KINDS, Store, owner_of

logger = logging.getLogger(__name__)


class Applier:
    """Writes single things to the cluster, and remembers what came of it."""

    def __init__(self, kube: KubeClient, store: Store) -> None:
        """Write there, and remember here."""
        self._kube = kube
        self._store = store

    async def delete(self, delete: Delete) -> None:
        """Delete an object."""
        self._store.wrote(delete.kind, await self._kube.delete(delete))

    async def patch(self, patch: Patch) -> None:
        """Change one field of a Job."""
        self._store.wrote(patch.kind, await self._kube.patch(patch))

    async def scale(self, scale: Scale) -> None:
        """Change the size of a Ray cluster."""
        await self._kube.scale(scale)

    async def apply(self, apply: Apply) -> None:
        """Make an object exist."""
        kind = apply.manifest["kind"]
        written = await (self._kube.create if apply.once else self._kube.apply)(apply.manifest)
        if written is None and kind == "Job":
            written = await self._existing(apply.manifest)
        if kind in KINDS:
            self._store.wrote(kind, written)

    async def _existing(self, manifest: Manifest) -> Manifest | None:
        """Return what has the name already: what an earlier process made, unless it is somebody else's."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        found = await self._kube.get(manifest["apiVersion"], kind, metadata["namespace"], metadata["name"])
        if found is not None and owner_of(kind, found) != owner_of(kind, manifest):
            raise Refused(f"a {kind} named {metadata['name']} exists and is not Luthier's; delete it.")
        return found

    async def finalizers(self, meta: Meta, version: int, finalizers: tuple[str, ...]) -> int:
        """Set a resource's finalizers, if it is still the one that was looked at; return its new version."""
        written = await self._kube.set_finalizers(meta, str(version), finalizers)
        self._store.wrote(meta.kind, written)
        return int(written["metadata"]["resourceVersion"])

    async def status(self, meta: Meta, version: int, merge: dict[str, object]) -> int:
        """Change a resource's status, if the resource is still the one that was looked at; return its new version."""
        written = await self._kube.patch_status(meta, str(version), merge)
        self._store.wrote(meta.kind, written)
        return int(written["metadata"]["resourceVersion"])

    async def event(self, meta: Meta, note: EventNote, now: str) -> None:
        """Write an Event."""
        await self._kube.record(meta, note, now)


@dataclass(frozen=True)
class Writes:
    """The writes of one reconcile, of a resource as it was when it was looked at."""

    applier: Applier
    meta: Meta
    version: int
    status: ApiModel
    now: str

    async def carry_out(self, plan: Plan) -> float | None:
        """Carry out a plan; return when to look again."""
        if plan.empty:
            logger.debug("nothing to do")
        version = self.version
        if plan.hold:
            version = await self.applier.finalizers(self.meta, version, (*self.meta.finalizers, names.FINALIZER))
            self._tell("finalizer", "added")
        for delete in plan.deletes:
            await self.applier.delete(delete)
            self._tell("delete", delete.name)
        for patch in plan.patches:
            await self.applier.patch(patch)
            self._tell("patch", patch.name)
        for scale in plan.scales:
            await self.applier.scale(scale)
            self._tell("scale", scale.name)
        for apply in plan.applies:
            await self.applier.apply(apply)
            self._tell("apply", apply.manifest["metadata"]["name"])
        if plan.status is not None and (merge := merge_patch(self.status.to_wire(), plan.status)):
            version = await self.applier.status(self.meta, version, merge)
            # A training has other figures every ten seconds, which are in the status and in metrics.
            level = logging.INFO if _state(plan.status) != _state(self.status.to_wire()) else logging.DEBUG
            self._tell("status", str(plan.status.get("phase")), level)
            self._count_gpu_seconds(plan.status)
        for note in plan.events:
            await self.applier.event(self.meta, note, self.now)
            self._tell("event", f"{note.reason}: {note.message}")
        if plan.release:
            others = tuple(each for each in self.meta.finalizers if each != names.FINALIZER)
            await self.applier.finalizers(self.meta, version, others)
            self._tell("finalizer", "removed")
        return plan.requeue_after_s

    def _tell(self, what: str, detail: str, level: int = logging.INFO) -> None:
        metrics.WRITES.labels(what).inc()
        logger.log(level, "%s %s", what, detail)

    def _count_gpu_seconds(self, status: Mapping[str, Any]) -> None:
        """Count what a status adds to what it said before. It is written once, by one operator."""
        used = [each.get("usage", {}).get("gpuSeconds", 0) for each in (self.status.to_wire(), status)]
        if used[1] > used[0]:
            metrics.GPU_SECONDS.labels(self.meta.namespace).inc(used[1] - used[0])


def _state(status: Mapping[str, Any]) -> object:
    """Return what a status says without its figures: the phase, and why each condition is as it is."""
    conditions = status.get("conditions", [])
    return status.get("phase"), [(each["type"], each["status"], each["reason"]) for each in conditions]
