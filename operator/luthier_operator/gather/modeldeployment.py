"""What there is in the cluster for a ModelDeployment."""

import json

from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_operator.kube import ApiNotInstalled, KubeClient
from luthier_operator.model.parse import meta_of, rayservice_view
from luthier_operator.model.resources import ModelDeploymentResource, Unreadable, read_spec, read_status
from luthier_operator.model.views import FineTuneJobView, Key
from luthier_operator.plan.modeldeployment.policies import ObservedServing
from luthier_operator.store.store import Store


class ModelDeploymentGatherer:
    """Gathers from the store, and from the API server what no watch tells."""

    def __init__(self, kube: KubeClient, store: Store) -> None:
        """Read from there."""
        self._kube, self._store = kube, store

    async def observe(self, resource: ModelDeploymentResource) -> ObservedServing:
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
        followed = self._followed(resource)
        return ObservedServing(rayservice, followed, self._store.pods(meta.key), kuberay_installed=installed)

    def _followed(self, resource: ModelDeploymentResource) -> FineTuneJobView | None:
        reference = resource.spec.model.fine_tune_job_ref
        key = Key("FineTuneJob", resource.meta.namespace, reference.name) if reference else None
        found = self._store.read("FineTuneJob", key) if key else []
        if not found:
            return None
        raw = json.loads(found[0].value)
        meta = meta_of("FineTuneJob", raw)
        try:
            storage = read_spec(FineTuneJobSpec, raw).output
        except Unreadable:
            return None  # its own reconcile says so
        return FineTuneJobView(meta.name, storage, read_status(FineTuneJobStatus, raw, meta))
