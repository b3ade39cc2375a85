"""KubeRay played: its real CRD in the API server, and the status that it would write of a RayService."""

from __future__ import annotations

import json
from typing import Any

from luthier_dev.paths import layout
from luthier_dev.waiting import wait_until

MODELDEPLOYMENT: dict[str, Any] = {
    "apiVersion": "luthier.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "reviews"},
    "spec": {"model": {"fineTuneJobRef": {"name": "reviews"}}},
}
CRD = "rayservices.ray.io"


def install_kuberay(cluster: Any) -> None:
    (definition,) = layout().share.glob("kuberay-*/ray.io_rayservices.yaml")
    cluster.kubectl("apply", "--server-side", "-f", str(definition))
    wait_until(lambda: not_established(cluster), CRD, timeout_s=30, interval_s=0.1)


def not_established(cluster: Any) -> str | None:
    status = json.loads(cluster.kubectl("get", "crd", CRD, "-o", "json")).get("status", {})
    established = [c for c in status.get("conditions") or [] if c["type"] == "Established" and c["status"] == "True"]
    return None if established else "not established"


class Server:
    """The RayService `reviews`, played."""

    def __init__(self, namespace: Any) -> None:
        self._namespace = namespace

    @property
    def raw(self) -> dict[str, Any]:
        return dict(self._namespace.get("rayservice", "reviews"))

    @property
    def weights(self) -> dict[str, int]:
        """{version: share of the requests} of the revisions that are configured."""
        front, *revisions = json.loads(self.raw["spec"]["serveConfigV2"])["applications"]
        routes = {r["revision"]: r["weight"] for r in front["deployments"][0]["user_config"]["routes"]}
        return {each["args"]["version"]: routes.get(each["name"], 0) for each in revisions}

    def tell(self, broken: str = "", message: str = "") -> None:
        """Say that every application runs, but for the revision of one version."""
        raw = self.raw
        statuses = {"front": {"status": "RUNNING"}}
        for each in json.loads(raw["spec"]["serveConfigV2"])["applications"][1:]:
            fails = each["args"]["version"] == broken
            statuses[each["name"]] = {"status": "DEPLOY_FAILED" if fails else "RUNNING", "message": message * fails}
        ready = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": ""}
        cluster = {"desiredWorkerReplicas": 1, "readyWorkerReplicas": 1}
        status = {
            "observedGeneration": raw["metadata"]["generation"],
            "numServeEndpoints": 1,
            "conditions": [{**ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "activeServiceStatus": {
                "rayClusterName": "reviews-1",
                "rayClusterStatus": cluster,
                "applicationStatuses": {name: value or None for name, value in statuses.items()},
            },
        }
        self._namespace.merge("rayservice", "reviews", {"status": status}, status=True)
