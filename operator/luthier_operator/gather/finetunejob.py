"""What there is in the cluster for a FineTuneJob."""

from dataclasses import replace
from datetime import datetime

from luthier_operator.gather.kueue import Heard, Queues
from luthier_operator.gather.pod_events import read_pod_events
from luthier_operator.gather.progress_poller import ProgressPoller
from luthier_operator.gather.versions_in_use import Served
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
        self._served = Served(kube, store)
        self._queues = Queues(kube, store, kueue_retry_s)

    async def observe(self, resource: FineTuneJobResource, now: datetime) -> tuple[ObservedRuns, Heard]:
        """Return what is known of a resource's runs, and what Kueue says of them."""
        meta = resource.meta
        observed = ObservedRuns(
            join(meta.uid, self._store.jobs(meta.key), self._store.pods(meta.key)),
            self._progress.newest(meta),
            self._progress.silent_s(meta),
            in_use=self._served.told(resource),
        )
        pod_events = await read_pod_events(self._kube, resource, observed, now)
        heard = await self._queues.hear(observed.jobs.own, now)
        return heard.added_to(replace(observed, pod_events=pod_events)), heard

    async def observe_live(self, resource: FineTuneJobResource, heard: Heard) -> ObservedRuns:
        """Return what the API server itself says, which the watch may not have told yet."""
        meta, selector = resource.meta, f"{names.FINETUNEJOB}={resource.meta.name}"
        jobs = await self._kube.list_by_label("batch/v1", "Job", meta.namespace, selector)
        pods = await self._kube.list_by_label("v1", "Pod", meta.namespace, selector)
        joined = join(meta.uid, map(job_view, jobs), map(pod_view, pods))
        observed = ObservedRuns(joined, in_use=await self._served.live(resource))
        return heard.added_to(observed)
