"""Which way in a ModelDeployment has from outside: what is made or deleted, and what the status says of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier_api.exposure import Expose
from luthier_api.reasons import Reason
from luthier_operator.manifests import exposure as manifests
from luthier_operator.model.actions import Apply, Delete
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.routes import API_VERSIONS, GatewayView, Listener, RouteView
from luthier_operator.plan.pods.diagnosis import clip
from luthier_operator.plan.verdict import Verdict

_AGAIN_S = 15.0
_HTTPS = ("HTTPS", "TLS")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Outside:
    """What the cluster has of a resource's way in."""

    routes: Sequence[RouteView] = ()
    """HTTPRoutes and Ingresses of its name, its own or not."""
    gateway: GatewayView | str | None = None
    """The Gateway that the spec names; None if there is none; why it cannot be read, if it cannot."""
    installed: bool = True
    """Whether the cluster knows the kind of route that the spec asks for."""


@dataclass(frozen=True)
class Exposure:
    """What is done about the way in, and what is said of it.

    Attributes:
        open: whether it is accepted; None if the spec asks for none.
    """

    open: bool | None = None
    reason: Reason = Reason.EXPOSED
    message: str = ""
    urls: tuple[str, ...] = ()
    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    requeue_after_s: float | None = None

    def judged(self, verdict: Verdict) -> Verdict:
        """Return a verdict with this: what is not reached as the spec asks is not ready."""
        if self.open is not False or not verdict.ready:
            return verdict
        text = f"{verdict.message} From outside no request reaches it yet: {self.message}"
        return Verdict(verdict.phase, self.reason, text, reconciling=True)


def exposure_of(resource: ModelDeploymentResource, outside: Outside) -> Exposure:
    """Return what is to be done about a resource's way in."""
    meta, expose = resource.meta, resource.spec.expose
    own = [route for route in outside.routes if route.owner_uid == meta.uid]
    wanted = manifests.kind_of(expose) if expose else None
    deletes = tuple(
        Delete(API_VERSIONS[each.kind], each.kind, meta.namespace, each.name, each.uid)
        for each in own
        if each.kind != wanted and not each.deleting
    )
    if expose is None or wanted is None:
        return Exposure(deletes=deletes)
    if not outside.installed:
        text = "the Gateway API is not installed in this cluster; install its CRDs and a controller, or use ingress."
        return Exposure(False, Reason.GATEWAY_API_NOT_INSTALLED, text, deletes=deletes, requeue_after_s=_AGAIN_S)
    if other := next((each for each in outside.routes if each.kind == wanted and each.owner_uid != meta.uid), None):
        text = f"the {wanted} {other.name} is not Luthier's; delete it, or rename this resource."
        return Exposure(False, Reason.CONFIG_ERROR, text, deletes=deletes, requeue_after_s=_AGAIN_S)
    manifest = manifests.route(meta, expose)
    there = next((each for each in own if each.kind == wanted), None)
    current = there is not None and there.spec_hash == manifests.hash_of(manifest)
    applies = () if current or (there and there.deleting) else (Apply(manifest),)
    if there and current and there.accepted:
        urls = _urls(expose, outside.gateway)
        return Exposure(True, Reason.EXPOSED, f"the route is accepted: {', '.join(urls)}.", urls, applies, deletes)
    reason, text = _missing(resource, expose, there if current else None, outside)
    # A Gateway that is made later tells the operator nothing.
    return Exposure(False, reason, text, (), applies, deletes, _AGAIN_S)


def _missing(
    resource: ModelDeploymentResource, expose: Expose, route: RouteView | None, outside: Outside
) -> tuple[Reason, str]:
    """Return why the way in is not accepted."""
    if expose.gateway is None:
        name = expose.ingress.class_name if expose.ingress else None
        whose = f"of IngressClass {name}" if name else "of the default IngressClass"
        text = f"no controller {whose} has given the Ingress an address; is there one, and does it run?"
        return Reason.WAITING_FOR_ROUTE, text
    gateway = f"{expose.gateway.namespace or resource.meta.namespace}/{expose.gateway.name}"
    if outside.gateway is None:
        return Reason.GATEWAY_NOT_FOUND, f"there is no Gateway {gateway}; create it, or correct expose.gateway."
    if isinstance(outside.gateway, GatewayView) and (section := expose.gateway.section_name):
        known = [each.name for each in outside.gateway.listeners]
        if section not in known:
            text = f"Gateway {gateway} has no listener {section}; it has: {', '.join(known) or 'none'}."
            return Reason.ROUTE_NOT_ACCEPTED, text
    if route is None or not route.answered:
        text = f"no controller of Gateway {gateway} has judged the HTTPRoute yet; does one run?"
        return Reason.WAITING_FOR_ROUTE, text
    if route.condition == "ResolvedRefs":
        text = f"Gateway {gateway} does not find what is behind the route: {clip(route.reason)}"
        return Reason.WAITING_FOR_ROUTE, text
    return Reason.ROUTE_NOT_ACCEPTED, f"Gateway {gateway} does not accept the route: {clip(route.reason)}"


def _urls(expose: Expose, gateway: GatewayView | str | None) -> tuple[str, ...]:
    """Return the URLs by which clients reach the server."""
    listener = _listener(expose, gateway) if isinstance(gateway, GatewayView) else None
    secure = expose.tls is not None or (listener is not None and listener.protocol in _HTTPS)
    scheme = "https" if secure else "http"
    # With `tls` of its own, a load balancer before the Gateway may end it, whose port is not known.
    known = listener is not None and (listener.protocol in _HTTPS) == secure
    port = listener.port if listener and known else _DEFAULT_PORTS[scheme]
    ending = ("" if port == _DEFAULT_PORTS[scheme] else f":{port}") + (expose.path if expose.path != "/" else "")
    return tuple(f"{scheme}://{host}{ending}" for host in expose.hostnames)


def _listener(expose: Expose, gateway: GatewayView) -> Listener | None:
    """Return the listener that clients use: of several, one with https."""
    section = expose.gateway.section_name if expose.gateway else None
    found = [each for each in gateway.listeners if section in (None, each.name)]
    usable = [each for each in found if each.protocol in ("HTTP", *_HTTPS)]
    return min(usable, key=lambda each: each.protocol not in _HTTPS, default=None)
