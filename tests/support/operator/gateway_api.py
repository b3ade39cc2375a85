"""The real CRDs of the Gateway API in an API server, and a Gateway there."""

from __future__ import annotations

from typing import Any

from luthier_dev import binaries
from luthier_dev.waiting import wait_until

GROUP = "gateway.networking.k8s.io"
OURS = ("gateways", "httproutes")
"""What the operator knows of. A controller watches more."""


def install_gateway_api(cluster: Any, *, everything: bool = False) -> None:
    """Install what the Gateway API calls its standard channel, or only the kinds that the operator knows of."""
    folder = binaries.gateway_api_crds()
    every = sorted(path.stem.removeprefix(f"{GROUP}_") for path in folder.glob(f"{GROUP}_*.yaml"))
    # A policy against older releases is no definition.
    plurals = [each for each in every if not each.startswith("vap_")] if everything else OURS
    files = [argument for each in plurals for argument in ("-f", str(folder / f"{GROUP}_{each}.yaml"))]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.kubectl("wait", "--for=condition=Established", *(f"crd/{each}.{GROUP}" for each in plurals))
    wait_until(lambda: None if _is_served(cluster) else "not served", "the Gateway API", timeout_s=30, interval_s=0.1)


def remove_gateway_api(cluster: Any) -> None:
    cluster.kubectl("delete", "crd", *(f"{each}.{GROUP}" for each in OURS), "--ignore-not-found")


def _is_served(cluster: Any) -> bool:
    return f"httproutes.{GROUP}" in cluster.kubectl("api-resources", f"--api-group={GROUP}", "-o", "name")


def gateway(name: str, listeners: list[dict[str, Any]], class_name: str = "test") -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": name},
        "spec": {"gatewayClassName": class_name, "listeners": listeners},
    }


def judge(namespace: Any, route: str, **conditions: tuple[str, str, str]) -> None:
    """Play the controller of the Gateway: write what it thinks of the present spec of a route."""
    raw = namespace.get("httproute", route)
    rows = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": raw["metadata"]["generation"],
        }
        for kind, (status, reason, message) in conditions.items()
    ]
    parent = {"parentRef": raw["spec"]["parentRefs"][0], "controllerName": "example.com/test", "conditions": rows}
    namespace.merge("httproute", route, {"status": {"parents": [parent]}}, status=True)
