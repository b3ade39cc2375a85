"""What there is of the way in from outside: the routes that are watched, and what only asking tells.

Of a resource that is not exposed, nothing is asked.
"""

from luthier_operator.kube import ApiNotInstalled, KubeClient, Unexpected
from luthier_operator.manifests.exposure import kind_of
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.routes import API_VERSIONS, GATEWAY_API, GatewayView, gateway_view, route_view
from luthier_operator.plan.modeldeployment.exposure import Outside
from luthier_operator.store.store import Store


class ExposureReader:
    """Reads what the watch has delivered, and asks the API server about the rest."""

    def __init__(self, kube: KubeClient, store: Store) -> None:
        """Read from there."""
        self._kube, self._store = kube, store

    async def read(self, resource: ModelDeploymentResource) -> Outside:
        """Return what is known of a resource's way in."""
        meta, expose = resource.meta, resource.spec.expose
        routes = self._store.routes(meta.key)
        if expose is None:
            return Outside(routes=tuple(routes))
        kind = kind_of(expose)
        try:
            if not any(route.kind == kind for route in routes):
                # Is the kind known, and does somebody else have the name?
                raw = await self._kube.get(API_VERSIONS[kind], kind, meta.namespace, meta.name)
                routes += [route_view(kind, raw)] if raw else []
            gateway = await self._gateway(resource)
        except ApiNotInstalled:
            return Outside(routes=tuple(routes), installed=False)
        return Outside(routes=tuple(routes), gateway=gateway)

    async def _gateway(self, resource: ModelDeploymentResource) -> GatewayView | str | None:
        """Return the Gateway; None if there is none; why it cannot be read, where the role does not reach."""
        expose = resource.spec.expose
        if expose is None or expose.gateway is None:
            return None
        namespace = expose.gateway.namespace or resource.meta.namespace
        try:
            raw = await self._kube.get(f"{GATEWAY_API}/v1", "Gateway", namespace, expose.gateway.name)
        except Unexpected as error:
            return str(error)
        return gateway_view(raw) if raw else None
