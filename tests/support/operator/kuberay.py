"""KubeRay played: its real CRD in the API server, and the status that it would write of a RayService."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from luthier_api.documents import SERVER_REPORT_PATH, SERVER_REPORT_PORT, ModelState, ServerReport
from luthier_dev.paths import layout
from luthier_dev.waiting import wait_until
from luthier_operator.manifests.rayservice import Layout, read_layout
from luthier_operator.model import names
from support.operator.endpoints import Endpoint, document

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
    """The RayService `reviews`, played, with one server replica in a pod that answers at an address of this machine."""

    ADDRESS = "127.0.90.1"

    def __init__(self, namespace: Any) -> None:
        self._namespace = namespace
        self._endpoint: Endpoint | None = None
        self._held = ""

    @property
    def raw(self) -> dict[str, Any]:
        return dict(self._namespace.get("rayservice", "reviews"))

    @property
    def layout(self) -> Layout:
        """What is configured."""
        raw = self.raw
        found = read_layout(
            raw["spec"]["serveConfigV2"], raw["metadata"].get("annotations", {}).get(names.PREVIOUS, "")
        )
        assert found
        return found

    @property
    def weights(self) -> dict[str, int]:
        """{version: share of the requests} of the revisions that are configured."""
        layout = self.layout
        versions = {each.name: each.version for each in (layout.stable, layout.canary) if each}
        return {versions[name]: weight for name, weight in layout.weights.items()}

    def tell(self, broken: str = "", message: str = "") -> None:
        """Say that every application runs, but for the canary of one version; the replica holds what it is to hold."""
        raw, layout = self.raw, self.layout
        statuses: dict[str, dict[str, Any]] = {names.SERVER: {"status": "RUNNING"}}
        if layout.canary:
            fails = layout.canary.version == broken
            status = "DEPLOY_FAILED" if fails else "RUNNING"
            statuses[layout.canary.name] = {"status": status, "message": message * fails}
        self._held = layout.stable.name
        if self._endpoint is None:
            self._endpoint = Endpoint(self.ADDRESS, self._report, SERVER_REPORT_PORT, SERVER_REPORT_PATH)
            self._play_pod()
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

    def close(self) -> None:
        if self._endpoint:
            self._endpoint.close()

    def _play_pod(self) -> None:
        container = {"name": "ray-worker", "image": "i"}
        labels = {names.MANAGED_BY: "luthier", names.MODELDEPLOYMENT: "reviews", names.COMPONENT: "worker"}
        metadata = {"name": "reviews-worker", "labels": labels}
        self._namespace.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
        )
        address = {"podIP": self.ADDRESS, "podIPs": [{"ip": self.ADDRESS}]}
        self._namespace.merge("pod", "reviews-worker", {"status": {"phase": "Running", **address}}, status=True)

    def _report(self, connection: socket.socket, over: threading.Event) -> None:
        held = ModelState(revision=self._held, state="Ready")
        report = ServerReport(replica="replica-1", ready=True, models=[held])
        connection.sendall(document(report.to_json()))
