"""What there is in the cluster for a BatchPrediction."""

from datetime import datetime

from luthier_operator.gather.followed import followed
from luthier_operator.gather.kueue import KueueReader, QueueStates
from luthier_operator.gather.pod_events import read_pod_events
from luthier_operator.gather.progress_poller import ProgressPoller
from luthier_operator.kube import KubeClient
from luthier_operator.model.ownership import join
from luthier_operator.model.resources import BatchPredictionResource
from luthier_operator.plan.batchprediction.situation import ObservedBatch
from luthier_operator.store.store import Store


class BatchPredictionGatherer:
    """Gathers from the store, and from the API server what no watch tells."""

    def __init__(self, kube: KubeClient, store: Store, progress: ProgressPoller, *, kueue_retry_s: float) -> None:
        """Ask Kueue no more often than every `kueue_retry_s`."""
        self._kube, self._store, self._progress = kube, store, progress
        self._kueue = KueueReader(kube, store, kueue_retry_s)

    async def observe(self, resource: BatchPredictionResource, now: datetime) -> tuple[ObservedBatch, QueueStates]:
        """Return what is known of a resource's Jobs, and when Kueue is to be asked again."""
        meta, spec = resource.meta, resource.spec
        jobs = join(meta.uid, self._store.jobs(meta.key), self._store.pods(meta.key))
        events = await read_pod_events(self._kube, meta.namespace, jobs.own, now, mounts=spec.mounts)
        queues = await self._kueue.read(jobs.own, now)
        observed = ObservedBatch(
            jobs,
            finetunejob=followed(self._store, meta.namespace, spec.model),
            progress=self._progress.newest(meta),
            pod_events=events,
            workloads=queues.workloads,
            kueue_installed=queues.kueue_installed,
        )
        return observed, queues
