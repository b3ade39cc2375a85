"""The API server asked over HTTP, for what tests read and write again and again.

kubectl is a process that starts, looks up the API groups and ends, for each look at a status; a test that waits takes
many a second. Tests of what kubectl itself says still run kubectl.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import httpx

from luthier_dev.controlplane import ControlPlane
from luthier_dev.errors import DevError

Raw = dict[str, Any]
# Names that tests use, as kubectl would take them: where their API is, and its plural.
_KINDS = {
    "event": ("api/v1", "events"),
    "pod": ("api/v1", "pods"),
    "limitrange": ("api/v1", "limitranges"),
    "quota": ("api/v1", "resourcequotas"),
    "resourcequota": ("api/v1", "resourcequotas"),
    "service": ("api/v1", "services"),
    "serviceaccount": ("api/v1", "serviceaccounts"),
    "job": ("apis/batch/v1", "jobs"),
    "ftj": ("apis/luthier.dev/v1alpha1", "finetunejobs"),
    "finetunejob": ("apis/luthier.dev/v1alpha1", "finetunejobs"),
    "bp": ("apis/luthier.dev/v1alpha1", "batchpredictions"),
    "batchprediction": ("apis/luthier.dev/v1alpha1", "batchpredictions"),
    "mdep": ("apis/luthier.dev/v1alpha1", "modeldeployments"),
    "modeldeployment": ("apis/luthier.dev/v1alpha1", "modeldeployments"),
    "rayservice": ("apis/ray.io/v1", "rayservices"),
    "workload": ("apis/kueue.x-k8s.io/v1beta2", "workloads"),
    "httproute": ("apis/gateway.networking.k8s.io/v1", "httproutes"),
    "ingress": ("apis/networking.k8s.io/v1", "ingresses"),
}
_OF_THE_CLUSTER = {"crd": "apis/apiextensions.k8s.io/v1/customresourcedefinitions"}
_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


class ApiRefused(DevError):
    """The API server refused a request; the message is its own."""


class Api:
    """One API server, as its administrator."""

    def __init__(self, control_plane: ControlPlane) -> None:
        keys = control_plane.site.pki
        trust = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        trust.load_cert_chain(keys / "admin.crt", keys / "admin.key")
        self._client = httpx.Client(base_url=control_plane.site.server, verify=trust, timeout=30)

    def create_namespace(self, name: str) -> None:
        self._send("POST", "/api/v1/namespaces", json={"metadata": {"name": name}})

    def get(self, namespace: str, kind: str, name: str) -> Raw:
        """Return an object, as `kubectl get -o json` does: without its managed fields."""
        return _bare(self._send("GET", f"{_path(namespace, kind)}/{name}"))

    def all(self, namespace: str, kind: str, selector: str = "") -> list[Raw]:
        """Return all objects of a kind, each with its own apiVersion and kind."""
        found = self._send("GET", _path(namespace, kind), params={"labelSelector": selector})
        typed = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        return [_bare(typed | item) for item in found["items"]]

    def merge(self, namespace: str, kind: str, name: str, patch: Raw, *, status: bool = False) -> None:
        path = f"{_path(namespace, kind)}/{name}" + "/status" * status
        self._send("PATCH", path, json=patch, headers=_MERGE_PATCH, params={"fieldManager": "kubectl-patch"})

    def _send(self, method: str, path: str, **request: Any) -> Raw:
        try:
            answer = self._client.request(method, path, **request)
        except httpx.RemoteProtocolError:  # the API server was started again, and closed the connection that was kept
            answer = self._client.request(method, path, **request)
        body: Raw = answer.json()
        if answer.is_error:
            raise ApiRefused(f"{method} {path}: {body.get('message', body)}")
        return body


@cache
def api_of(control_plane: ControlPlane) -> Api:
    """One client, and so one set of connections, for all tests of a control plane."""
    return Api(control_plane)


def _path(namespace: str, kind: str) -> str:
    if kind in _OF_THE_CLUSTER:
        return f"/{_OF_THE_CLUSTER[kind]}"
    group, plural = _KINDS.get(kind) or _KINDS[kind.removesuffix("s")]
    return f"/{group}/namespaces/{namespace}/{plural}"


def _bare(resource: Raw) -> Raw:
    resource["metadata"].pop("managedFields", None)
    return resource
