"""Calls to the API server: apply, create, patch, delete, list and Events, each as one request.

Plain requests on the client's connection, without its model classes: they would cost memory and hide nothing. Every
write carries the one field manager; every failure leaves as one of `errors`.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from luthier_api import API_VERSION
from luthier_operator import names
from luthier_operator.cluster.errors import Conflict, Exists, Gone, Transient, error_of
from luthier_operator.observed import Meta
from luthier_operator.plan.types import Delete, EventNote, Manifest, Patch

_PLURALS = {
    "FineTuneJob": "finetunejobs",
    "ModelDeployment": "modeldeployments",
    "Job": "jobs",
    "Pod": "pods",
    "RayService": "rayservices",
    "Event": "events",
    "Service": "services",
}
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class Cluster:
    """The API server, as far as the operator uses it."""

    def __init__(self, api: ApiClient, timeout_s: float) -> None:
        """Use this connection; an answer that takes longer than `timeout_s` counts as none."""
        self._api = api
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    @classmethod
    async def connect(cls, timeout_s: float = 30.0) -> "Cluster":
        """Connect with $KUBECONFIG if set, otherwise as the pod's service account, otherwise with ~/.kube/config."""
        configuration = Configuration()
        if not os.environ.get("KUBECONFIG") and Path(SERVICE_TOKEN_FILENAME).exists():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.client_session_kwargs = {"trust_env": False}
        return cls(ApiClient(configuration), timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def apply(self, manifest: Manifest) -> Manifest:
        """Apply an object by the server; return it as it then is."""
        metadata = manifest["metadata"]
        path = _path(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])
        return await self._request("PATCH", path, manifest, _APPLY, force="true")

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object; return None if there is one of that name already."""
        path = _path(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["namespace"])
        try:
            return await self._request("POST", path, manifest)
        except Exists:
            return None

    async def patch(self, patch: Patch) -> Manifest | None:
        """Change some fields of an object; return None if it is gone."""
        path = _path(patch.api_version, patch.kind, patch.namespace, patch.name)
        try:
            return await self._request("PATCH", path, patch.merge, _MERGE)
        except Gone:
            return None

    async def delete(self, target: Delete) -> Manifest | None:
        """Delete an object and wait for its dependents before it goes; None if it, or what had its uid, is gone."""
        path = _path(target.api_version, target.kind, target.namespace, target.name)
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": target.uid}}
        try:
            return await self._request("DELETE", path, body)
        except (Gone, Conflict):
            return None  # a conflict says that another object has the name by now

    async def patch_status(self, meta: Meta, resource_version: str, merge: Mapping[str, Any]) -> Manifest:
        """Change a resource's status, if the resource is still as it was when the status was decided on."""
        path = _path(API_VERSION, meta.kind, meta.namespace, meta.name) + "/status"
        body = {"metadata": {"uid": meta.uid, "resourceVersion": resource_version}, "status": merge}
        return await self._request("PATCH", path, body, _MERGE)

    async def set_finalizers(self, meta: Meta, resource_version: str, finalizers: Sequence[str]) -> Manifest:
        """Write a resource's finalizers, if it is still as it was when that was decided on."""
        path = _path(API_VERSION, meta.kind, meta.namespace, meta.name)
        metadata = {"uid": meta.uid, "resourceVersion": resource_version, "finalizers": list(finalizers)}
        return await self._request("PATCH", path, {"metadata": metadata}, _MERGE)

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Manifest | None:
        """Return an object, or None if there is none.

        Raises:
            ApiNotInstalled: if the cluster does not know the kind.
        """
        try:
            return await self._request("GET", _path(api_version, kind, namespace, name))
        except Gone:
            return None

    async def list_by_label(self, api_version: str, kind: str, namespace: str, selector: str) -> Sequence[Manifest]:
        """Return the objects of a namespace that a label selector picks, from the API server itself."""
        answer = await self._request("GET", _path(api_version, kind, namespace), labelSelector=selector)
        items: Sequence[Manifest] = answer["items"]
        return items

    async def record(self, meta: Meta, note: EventNote, now: str) -> None:
        """Write an Event about a resource. Its name follows from what it says, so that it is written once."""
        digest = hashlib.sha256(f"{meta.uid} {note.reason} {note.message} {now}".encode()).hexdigest()[:16]
        involved = {
            "apiVersion": API_VERSION,
            "kind": meta.kind,
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        }
        await self.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"namespace": meta.namespace, "name": f"{meta.name}.{digest}"},
                "involvedObject": involved,
                "type": note.type,
                "reason": str(note.reason),
                "message": note.message[:1024],
                "source": {"component": names.FIELD_MANAGER},
                "reportingComponent": f"{names.FIELD_MANAGER}-operator",
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            }
        )

    async def _request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> Manifest:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if method in ("PATCH", "POST"):
            query["fieldManager"] = names.FIELD_MANAGER
        verb, url, sent, data, form = await self._api.param_serialize(
            method,
            path,
            header_params=headers,
            query_params=list(query.items()),
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(verb, url, sent, data, form, _request_timeout=self._timeout)
            content: bytes = await response.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Transient(f"the API server did not answer: {error or type(error).__name__}") from error
        if not 200 <= response.status < 300:
            raise error_of(response.status, content, response.headers)
        answer: Manifest = json.loads(content)
        return answer


def _path(api_version: str, kind: str, namespace: str, name: str = "") -> str:
    root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
    return f"{root}/namespaces/{namespace}/{_PLURALS[kind]}" + (f"/{name}" if name else "")
