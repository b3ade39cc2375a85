"""Calls to the API server: apply, create, patch, delete, list and Events, each as one request.

Plain requests, without the client library's model classes: they would cost memory and hide nothing. Every write carries
the one field manager; every failure leaves as one of `errors`. Nothing is tried again here: whoever asked looks again
at what there is, since a request without an answer may have been carried out.
"""

import hashlib
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from luthier_api import API_VERSION
from luthier_operator.kube.access import Access
from luthier_operator.kube.errors import Conflict, Exists, Expired, Gone, Transient, error_of
from luthier_operator.kube.pace import TROUBLE, Pace, retry_after_s
from luthier_operator.model import names
from luthier_operator.model.actions import Delete, EventNote, Manifest, Patch
from luthier_operator.model.views import Meta

_PLURALS = {
    "FineTuneJob": "finetunejobs",
    "ModelDeployment": "modeldeployments",
    "Job": "jobs",
    "Pod": "pods",
    "RayService": "rayservices",
    "Event": "events",
    "Service": "services",
    "Workload": "workloads",
    "Lease": "leases",
}
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
# Each page is parsed as a whole, for all kinds side by side, and what that takes stays with the process.
_PAGE = 100
# The API server ends a watch by itself, and tells of each at least once a minute how far it is.
_WATCH_S = (240, 300)
_SILENT_S = 70.0
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_CONNECT_S = 10.0
_EVENTS = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})
_LEASES = "/apis/coordination.k8s.io/"


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    version: int
    """Of the whole list."""
    items: Sequence[Manifest]


class Cluster:
    """The API server, as far as the operator uses it."""

    def __init__(
        self, access: Access, pace: Pace, timeout_s: float, traces: Sequence[aiohttp.TraceConfig] = ()
    ) -> None:
        """Connect when first used; an answer that takes longer than `timeout_s` counts as none."""
        self._access, self._pace = access, pace
        self._session = access.session(traces=traces)
        connect_s = min(timeout_s, _CONNECT_S)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=connect_s)
        self._watch_timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=_SILENT_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

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

    async def list_versions(self, path: str, selector: str) -> tuple[int, dict[tuple[str, str], int]]:
        """Return the version of a list, and {(namespace, name): version} of all objects in it, page by page.

        Raises:
            ApiNotInstalled: if the cluster does not know the kind.
        """
        versions: dict[tuple[str, str], int] = {}
        async for page in self.pages(path, selector, _METADATA):
            for metadata in (item["metadata"] for item in page.items):
                versions[metadata["namespace"], metadata["name"]] = int(metadata["resourceVersion"])
        return page.version, versions

    async def pages(self, path: str, selector: str, accept: str = _JSON) -> AsyncGenerator[Page]:
        """Yield the objects of a list page by page; there is at least one.

        Raises:
            ApiNotInstalled: if the cluster does not know the kind.
            Expired: if the pages took too long.
        """
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._request("GET", path, accept=accept, **query)
            # Of a custom resource that there is none of, the API server lists `null`.
            yield Page(int(page["metadata"]["resourceVersion"]), page["items"] or [])
            if not (token := page["metadata"].get("continue")):
                return
            query["continue"] = token

    async def watch(self, path: str, selector: str, version: int) -> AsyncGenerator[tuple[str, Manifest]]:
        """Yield what happens to the objects of a list from a version on: the type of the event, and the object.

        It ends when the API server ends it, as it does every few minutes.

        Raises:
            Expired: if that version is too old, or something was told that is no event.
            Transient: if it was cut off, or nothing was told for too long.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(version)}
        query |= {"timeoutSeconds": str(random.randint(*_WATCH_S))} | ({"labelSelector": selector} if selector else {})
        await self._pace.turn()
        headers = {"Accept": _JSON, **await self._access.authorization()}
        url, answered = self._access.server + path, False
        try:
            async with self._session.get(url, params=query, headers=headers, timeout=self._watch_timeout) as response:
                if response.status != 200:
                    await self._meaning(response, await response.read())
                answered = True
                self._pace.succeeded()
                async for line in _lines(response.content):
                    yield _event(line)
        except (aiohttp.ClientError, TimeoutError) as error:
            if not answered:
                self._pace.failed()
            raise Transient(f"the API server does not tell more: {error or type(error).__name__}") from error

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
        if not path.startswith(_LEASES):  # one that is not renewed in time leaves nobody to do anything
            await self._pace.turn()
        headers = {"Accept": accept, **await self._access.authorization()}
        content = None if body is None else json.dumps(body).encode()
        if content:
            headers["Content-Type"] = content_type
        try:
            async with self._session.request(
                method, self._access.server + path, params=query, data=content, headers=headers, timeout=self._timeout
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._pace.failed()
            raise Transient(f"the API server did not answer: {error or type(error).__name__}") from error
        return await self._meaning(response, answer)

    async def _meaning(self, response: aiohttp.ClientResponse, content: bytes) -> Manifest:
        if response.status in TROUBLE:
            self._pace.failed(retry_after_s(response.headers))
        elif response.status == 401:
            await self._access.refused()
            self._pace.failed()
        else:
            self._pace.succeeded()
        if not 200 <= response.status < 300:
            raise error_of(response.status, content, response.headers)
        try:
            answer: Manifest = json.loads(content)
        except ValueError as error:
            text = " ".join(content[:100].decode(errors="replace").split())
            raise Transient(f"the API server answered no JSON ({text}); is another server in between?") from error
        return answer


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the whole lines; half a one at the end is of a connection that was cut."""
    rest: list[bytes] = []
    async for chunk in content.iter_any():
        *lines, last = chunk.split(b"\n")
        if lines:
            rest.append(lines[0])
            lines[0] = b"".join(rest)
            rest.clear()
        rest.append(last)
        for line in lines:
            yield line


def _event(line: bytes) -> tuple[str, Manifest]:
    try:
        event = json.loads(line)
        kind, raw = event["type"], event["object"]
        if kind in _EVENTS and raw["metadata"]["resourceVersion"].isdigit():
            return kind, raw
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # said below
    raise Expired(f"the watch was told {line[:300]!r}")


def _path(api_version: str, kind: str, namespace: str, name: str = "") -> str:
    root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
    return f"{root}/namespaces/{namespace}/{_PLURALS[kind]}" + (f"/{name}" if name else "")
