"""What there is in the cluster for a ModelDeployment."""

from collections.abc import Sequence
from datetime import datetime

from luthier_operator.gather.exposure import ExposureReader
from luthier_operator.gather.followed import followed
from luthier_operator.gather.pod_events import newest, read_failed_mount
from luthier_operator.gather.server_poller import ServerPoller
from luthier_operator.kube import ApiNotInstalled, KubeClient
from luthier_operator.model.parse import rayservice_view
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.views import PodView, RayServiceView
from luthier_operator.plan.modeldeployment import pods_missing
from luthier_operator.plan.modeldeployment.policies import ObservedServing
from luthier_operator.store.store import Store


class ModelDeploymentGatherer:
    """Gathers from the store, and from the API server what no watch tells."""

    def __init__(self, kube: KubeClient, store: Store, servers: ServerPoller) -> None:
        """Read from there, and what server replicas say of themselves."""
        self._kube, self._store, self._servers = kube, store, servers
        self._exposure = ExposureReader(kube, store)

    async def observe(self, resource: ModelDeploymentResource, now: datetime) -> ObservedServing:
        """Return what is known of a resource's server."""
        meta = resource.meta
        rayservice, installed = self._store.rayservice(meta.key), True
        if not self._store.watched("RayService", meta.key):
            # Is the kind known, and does somebody else have the name?
            try:
                raw = await self._kube.get("ray.io/v1", "RayService", meta.namespace, meta.name)
                rayservice = rayservice_view(raw) if raw else None
            except ApiNotInstalled:
                installed = False
        job, pods = followed(self._store, meta.namespace, resource.spec.model), self._store.pods(meta.key)
        reports = self._servers.reports(meta.key, [pod for pod in pods if pod.component == "worker"])
        event = await self._pod_event(resource, rayservice, pods, now)
        outside, ended = await self._exposure.read(resource), self._servers.ended(meta.key)
        return ObservedServing(
            rayservice,
            job,
            pods,
            reports,
            kuberay_installed=installed,
            pod_event=event,
            outside=outside,
            ended=ended,
        )

    async def _pod_event(
        self,
        resource: ModelDeploymentResource,
        server: RayServiceView | None,
        pods: Sequence[PodView],
        now: datetime,
    ) -> str:
        """Return why a pod could not be created, or not mount its volumes, if one is missing and has been a while."""
        if server is None or not pods_missing.is_due(server, pods, now):
            return ""
        for pod in pods_missing.unmounted(pods):
            if text := await read_failed_mount(self._kube, resource.meta.namespace, pod.uid):
                return text
        selector = f"involvedObject.kind=RayCluster,involvedObject.name={server.cluster},type=Warning"
        events = await self._kube.list_by_field("v1", "Event", resource.meta.namespace, selector)
        return newest([event for event in events if event.get("reason") in pods_missing.REASONS])
