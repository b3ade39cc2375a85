"""The real CRDs of the Gateway API in an API server, and a Gateway there."""

from __future__ import annotations

import json
from typing import Any

from luthier_dev import binaries
from luthier_dev.waiting import wait_until

GROUP = "gateway.networking.k8s.io"
CRDS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants")


def install_gateway_api(cluster: Any) -> None:
    """Install what the Gateway API calls its standard channel, of the kinds that matter here."""
    folder = binaries.gateway_api_crds()
    for plural in CRDS:
        cluster.kubectl("apply", "--server-side", "-f", str(folder / f"{GROUP}_{plural}.yaml"))
    for plural in CRDS:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{plural}.{GROUP}")
    wait_until(lambda: None if _is_served(cluster) else "not served", "the Gateway API", timeout_s=30, interval_s=0.1)


def remove_gateway_api(cluster: Any) -> None:
    cluster.kubectl("delete", "crd", *(f"{plural}.{GROUP}" for plural in CRDS), "--ignore-not-found")


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


def as_json(*manifests: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
