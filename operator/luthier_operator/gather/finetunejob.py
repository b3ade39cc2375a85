"""What there is in the cluster for a FineTuneJob."""

from dataclasses import replace
from datetime import datetime

from luthier_operator.gather.kueue import KueueReader, QueueStates
from luthier_operator.gather.pod_events import read_pod_events
from luthier_operator.gather.progress_poller import ProgressPoller
from luthier_operator.gather.versions_in_use import VersionsInUse
from luthier_operator.kube import KubeClient
from luthier_operator.model import names
from luthier_operator.model.ownership import join
from luthier_operator.model.parse import job_view, pod_view
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.plan.finetunejob.situation import ObservedRuns
from luthier_operator.store.store import Store


class FineTuneJobGatherer:
    """Gathers from the store, and from the API server what no watch tells."""

    def __init__(self, kube: KubeClient, store: Store, progress: ProgressPoller, *, kueue_retry_s: float) -> None:
        """Ask Kueue no more often than every `kueue_retry_s`."""
        self._kube, self._store, self._progress = kube, store, progress
        self._versions_in_use = VersionsInUse(kube, store)
        self._kueue = KueueReader(kube, store, kueue_retry_s)

    async def observe(self, resource: FineTuneJobResource, now: datetime) -> tuple[ObservedRuns, QueueStates]:
        """Return what is known of a resource's runs, and what Kueue says of them."""
        meta = resource.meta
        observed = ObservedRuns(
            join(meta.uid, self._store.jobs(meta.key), self._store.pods(meta.key)),
            self._progress.newest(meta),
            self._progress.silent_s(meta),
            in_use=self._versions_in_use.known(resource),
        )
        pod_events = await read_pod_events(
            self._kube, meta.namespace, observed.jobs.own, now, mounts=resource.spec.mounts
        )
        queues = await self._kueue.read(observed.jobs.own, now)
        return queues.added_to(replace(observed, pod_events=pod_events)), queues

    async def observe_live(self, resource: FineTuneJobResource, queues: QueueStates) -> ObservedRuns:
        """Return what the API server itself says, which the watch may not have delivered yet."""
        meta, selector = resource.meta, f"{names.FINETUNEJOB}={resource.meta.name}"
        jobs = await self._kube.list_by_label("batch/v1", "Job", meta.namespace, selector)
        pods = await self._kube.list_by_label("v1", "Pod", meta.namespace, selector)
        joined = join(meta.uid, map(job_view, jobs), map(pod_view, pods))
        observed = ObservedRuns(joined, in_use=await self._versions_in_use.live(resource))
        return queues.added_to(observed)
