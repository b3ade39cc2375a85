"""What Kueue says of the Jobs that wait in its queues.

Its Workloads are watched, in the version that the cluster prefers. Where the watch tells nothing of a Job that Kueue
has had time for, the API server is asked, now and then: Kueue may be missing, or not look at the namespace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from luthier_operator.kube import ApiNotInstalled, KubeClient
from luthier_operator.model import names
from luthier_operator.model.parse import workload_view
from luthier_operator.model.timestamps import seconds_since
from luthier_operator.model.views import JobView, WorkloadView
from luthier_operator.plan.finetunejob.situation import ObservedRuns
from luthier_operator.store.store import Store

# Kueue makes the Workload of a new Job at once.
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class QueueStates:
    """What is known of a resource's queued Jobs."""

    workloads: Mapping[str, WorkloadView] = field(default_factory=dict)
    """{uid of a Job: what Kueue says of it}."""
    kueue_installed: bool = True
    again_s: float | None = None
    """When to ask again, because the watch has delivered nothing."""

    def added_to(self, observed: ObservedRuns) -> ObservedRuns:
        """Return what was observed, with this."""
        return replace(observed, workloads=self.workloads, kueue_installed=self.kueue_installed)

    def sooner(self, after_s: float | None) -> float | None:
        """Return when to look again, given when that would be without queues."""
        return min((each for each in (after_s, self.again_s) if each is not None), default=None)


class KueueReader:
    """Reads what the watch has delivered, and asks the API server about the rest."""

    def __init__(self, kube: KubeClient, store: Store, retry_s: float) -> None:
        """Ask no more often than every `retry_s`."""
        self._kube, self._store, self._retry_s = kube, store, retry_s

    async def read(self, jobs: Sequence[JobView], now: datetime) -> QueueStates:
        """Return what Kueue says of those Jobs of a resource that wait in a queue."""
        # Kueue may also hold Jobs that name no queue; about those, its watch is enough.
        queued = [job for job in jobs if job.live and (job.queue or job.held)]
        if not queued:
            return QueueStates()
        watched = self._store.workloads(queued)
        silent = [job for job in queued if job.queue and job.uid not in watched]
        if not silent:
            return QueueStates(watched)
        if min(seconds_since(job.created_at, now) for job in silent) < _PATIENCE_S:
            return QueueStates(watched, again_s=_PATIENCE_S)
        try:
            asked = [view for job in silent for view in await self._ask(job)]
        except ApiNotInstalled:
            return QueueStates(watched, kueue_installed=False, again_s=self._retry_s)
        return QueueStates({**watched, **{view.job_uid: view for view in asked}}, again_s=self._retry_s)

    async def _ask(self, job: JobView) -> list[WorkloadView]:
        version = await self._kube.preferred_version(names.KUEUE)
        selector = f"{names.QUEUED_JOB}={job.uid}"
        found = await self._kube.list_by_label(version, "Workload", job.namespace, selector)
        return [workload_view(raw) for raw in found]
