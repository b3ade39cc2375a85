"""Calls to the API server: apply, create, patch, delete, list and Events, each as one request.

Requests go through the official client (`kubernetes.aio`), with bodies as plain JSON: its model classes would take ten
times the CPU and memory, and know nothing of custom resources. Every write carries the one field manager; every failure
leaves as one of `errors`. Nothing is retried here: the caller looks again at what there is, since a request without an
answer may have been carried out.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp

from luthier_api import API_VERSION
from luthier_operator.kube.access import Access
from luthier_operator.kube.errors import Conflict, Exists, Gone, Transient, error_of
from luthier_operator.model import names
from luthier_operator.model.actions import Delete, EventNote, Manifest, Patch, Scale
from luthier_operator.model.views import Meta

_PLURALS = {
    "FineTuneJob": "finetunejobs",
    "ModelDeployment": "modeldeployments",
    "BatchPrediction": "batchpredictions",
    "Job": "jobs",
    "Pod": "pods",
    "RayService": "rayservices",
    "RayCluster": "rayclusters",
    "Event": "events",
    "Service": "services",
    "Workload": "workloads",
    "Lease": "leases",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "HTTPRoute": "httproutes",
    "Gateway": "gateways",
    "Ingress": "ingresses",
}
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
# Pages are parsed whole.
_PAGE = 500
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_CONNECT_S = 10.0


@dataclass(frozen=True)
class ListedVersions:
    """What a list of names and versions says."""

    version: int
    """resourceVersion of the list."""
    versions: Mapping[tuple[str, str], int]
    """{(namespace, name): resourceVersion}."""


class KubeClient:
    """The API server, as far as the operator uses it."""

    def __init__(self, access: Access, timeout_s: float, traces: Sequence[aiohttp.TraceConfig] = ()) -> None:
        """Connect when first used; an answer that takes longer than `timeout_s` counts as none."""
        self._access, self._client = access, access.client(traces)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, _CONNECT_S))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

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

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object that has not changed since it was read; return it as it then is."""
        metadata = manifest["metadata"]
        path = _path(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, manifest)

    async def patch(self, patch: Patch) -> Manifest | None:
        """Change some fields of an object; return None if it is gone."""
        path = _path(patch.api_version, patch.kind, patch.namespace, patch.name)
        try:
            return await self._request("PATCH", path, patch.merge, _MERGE)
        except Gone:
            return None

    async def scale(self, scale: Scale) -> None:
        """Set the size of a Ray cluster's only group of workers; nothing if the cluster is gone."""
        group = "/spec/workerGroupSpecs/0"
        values: dict[str, Any] = {"minReplicas": scale.fewest, "maxReplicas": scale.most}
        if scale.replicas is not None:
            values["replicas"] = scale.replicas
        if scale.remove:
            values["scaleStrategy"] = {"workersToDelete": list(scale.remove)}
        body = [{"op": "add", "path": f"{group}/{name}", "value": value} for name, value in values.items()]
        path = _path("ray.io/v1", "RayCluster", scale.namespace, scale.name)
        with suppress(Gone):
            await self._request("PATCH", path, body, _JSON_PATCH)

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

    async def list_by_field(self, api_version: str, kind: str, namespace: str, selector: str) -> Sequence[Manifest]:
        """Return the objects of a namespace that a field selector picks, from the API server itself."""
        answer = await self._request("GET", _path(api_version, kind, namespace), fieldSelector=selector)
        items: Sequence[Manifest] = answer["items"]
        return items

    async def preferred_version(self, group: str) -> str:
        """Return the API version of a group that the cluster prefers, such as `batch/v1`.

        Raises:
            ApiNotInstalled: if the cluster does not know the group.
        """
        answer = await self._request("GET", f"/apis/{group}")
        version: str = answer["preferredVersion"]["groupVersion"]
        return version

    async def list_versions(self, path: str, selector: str) -> ListedVersions:
        """Return names and versions of all objects under a path that a label selector picks, read page by page.

        Raises:
            ApiNotInstalled: if the cluster does not know the kind.
            Expired: if the pages took too long.
        """
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        versions: dict[tuple[str, str], int] = {}
        while True:
            page = await self._request("GET", path, accept=_METADATA, **query)
            # For a custom resource without any object, the API server lists `null`.
            for metadata in (item["metadata"] for item in page["items"] or []):
                versions[metadata["namespace"], metadata["name"]] = int(metadata["resourceVersion"])
            if not (token := page["metadata"].get("continue")):
                return ListedVersions(int(page["metadata"]["resourceVersion"]), versions)
            query["continue"] = token

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
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        **query: str,
    ) -> Manifest:
        if method in ("PATCH", "POST", "PUT"):
            query["fieldManager"] = names.FIELD_MANAGER
        headers = {"Accept": accept, "Content-Type": content_type, **await self._access.authorization()}
        url = self._access.server + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = await self._client.call_api(
                method, url, header_params=headers, body=body, _request_timeout=self._timeout
            )
            content: bytes = await response.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, OSError) as error:
            raise Transient(f"the API server did not answer: {error or type(error).__name__}") from error
        if response.status == 401:
            await self._access.refused()
        if not 200 <= response.status < 300:
            raise error_of(response.status, content, response.headers)
        try:
            answer: Manifest = json.loads(content)
        except ValueError as error:
            text = " ".join(content[:100].decode(errors="replace").split())
            raise Transient(f"the API server answered no JSON ({text}); is another server in between?") from error
        return answer


def _path(api_version: str, kind: str, namespace: str, name: str = "") -> str:
    root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
    return f"{root}/namespaces/{namespace}/{_PLURALS[kind]}" + (f"/{name}" if name else "")
