"""What the operator knows of ways in from outside: HTTPRoutes and Ingresses that it made, and a Gateway; and parsers.

An HTTPRoute is accepted when a controller says so of its present spec, for the Gateway and for the Service behind it.
An Ingress has no such word: it is accepted when its controller has given it an address.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from luthier_operator.model import names
from luthier_operator.model.parse import owner_uid
from luthier_operator.model.sanitize import printable
from luthier_operator.model.views import Raw

RouteKind = Literal["HTTPRoute", "Ingress"]
ROUTE_KINDS: tuple[RouteKind, ...] = ("HTTPRoute", "Ingress")
GATEWAY_API = "gateway.networking.k8s.io"
API_VERSIONS: dict[RouteKind, str] = {"HTTPRoute": f"{GATEWAY_API}/v1", "Ingress": "networking.k8s.io/v1"}
_MUST_BE_TRUE = ("Accepted", "ResolvedRefs")
_LONGEST = 300


@dataclass(frozen=True)
class RouteView:
    """An HTTPRoute or an Ingress."""

    kind: RouteKind
    name: str
    uid: str
    owner_uid: str
    deleting: bool = False
    spec_hash: str = ""
    accepted: bool = False
    answered: bool = False
    """Whether a controller has said anything about its present spec."""
    reason: str = ""
    """Why it is not accepted, in the controller's own words: a reason and a message."""
    condition: str = ""
    """Which of the conditions says so."""


@dataclass(frozen=True)
class Listener:
    """A listener of a Gateway."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True)
class GatewayView:
    """A Gateway."""

    listeners: tuple[Listener, ...] = ()


def route_view(kind: RouteKind, raw: Raw) -> RouteView:
    """Parse an HTTPRoute or an Ingress."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    accepted, answered, condition, reason = (
        _judged(status, metadata.get("generation", 0)) if kind == "HTTPRoute" else _addressed(status)
    )
    return RouteView(
        kind=kind,
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=owner_uid(raw),
        deleting="deletionTimestamp" in metadata,
        spec_hash=metadata.get("annotations", {}).get(names.SPEC_HASH, ""),
        accepted=accepted,
        answered=answered,
        condition=condition,
        reason=reason,
    )


def httproute_view(raw: Raw) -> RouteView:
    """Parse an HTTPRoute."""
    return route_view("HTTPRoute", raw)


def ingress_view(raw: Raw) -> RouteView:
    """Parse an Ingress."""
    return route_view("Ingress", raw)


def gateway_view(raw: Raw) -> GatewayView:
    """Parse a Gateway."""
    listeners = (raw.get("spec") or {}).get("listeners") or []
    return GatewayView(
        tuple(Listener(str(each.get("name", "")), str(each.get("protocol", "")), _port(each)) for each in listeners)
    )


def _port(listener: Raw) -> int:
    port = listener.get("port")
    return port if isinstance(port, int) else 0


def _judged(status: Raw, generation: int) -> tuple[bool, bool, str, str]:
    """Return whether an HTTPRoute is accepted; whether anybody has judged it; and by which condition not, and why."""
    refusals: list[tuple[str, str]] = []
    answered = False
    for conditions in _of_this_generation(status, generation):
        answered = True
        wrong = [name for name in _MUST_BE_TRUE if conditions.get(name, {}).get("status") != "True"]
        if not wrong:
            return True, True, "", ""
        refusals.append((wrong[0], _said(conditions.get(wrong[0], {}))))
    condition, reason = refusals[0] if refusals else ("", "")
    return False, answered, condition, reason


def _of_this_generation(status: Raw, generation: int) -> Iterator[dict[str, Raw]]:
    """Yield what each controller says of the present spec: {type of the condition: the condition}."""
    for parent in status.get("parents") or []:
        conditions = {each.get("type"): each for each in parent.get("conditions") or []}
        accepted = conditions.get("Accepted")
        if accepted and accepted.get("observedGeneration", generation) >= generation:
            yield {str(name): each for name, each in conditions.items()}


def _said(condition: Raw) -> str:
    words = [printable(condition.get(name, ""), _LONGEST).strip() for name in ("reason", "message")]
    return ": ".join(each.rstrip(".") for each in words if each)


def _addressed(status: Raw) -> tuple[bool, bool, str, str]:
    addresses = (status.get("loadBalancer") or {}).get("ingress") or []
    there = any(each.get("ip") or each.get("hostname") for each in addresses)
    return there, there, "", ""
