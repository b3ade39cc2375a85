"""The API server, with the user's kubeconfig. All calls of the Kubernetes client are here.

Every error becomes one of `errors`, once, here. Objects are read and written as JSON: what a newer release has added
is shown by `-o json` too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import urllib3
import yaml

from luthier.errors import Denied, Invalid, LuthierError, NotFound, Unreachable
from luthier.kinds import FINETUNEJOB, KINDS, Kind, Raw, Resource
from luthier_api import GROUP, VERSION

if TYPE_CHECKING:
    from kubernetes.client.api_client import ApiClient

FIELD_MANAGER = "luthier-cli"
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_TIMEOUT_S = 30.0
# A person waits for the answer, so what fails is told at once. But for 429, which says when to come again: API servers
# answer it to the first list of a kind after its CRD has changed, or after a start (kubernetes/kubernetes#124642).
_RETRIES = urllib3.Retry(
    total=None, connect=False, read=False, other=False, redirect=False,
    status=3, status_forcelist=[429], allowed_methods=None, raise_on_status=False,
)  # fmt: skip
NOT_INSTALLED = (
    "This cluster does not know Luthier's resources: install the chart, or choose another cluster with --context; "
    "`luthier doctor` says what is missing."
)


class Cluster:
    """One cluster and one namespace in it.

    Args:
        client: An API client of the kubernetes package.
        namespace: Where resources are, if nothing else is said.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    # Our own kinds

    def find(self, kind: Kind, name: str) -> Resource | None:
        """Return a resource, or None."""
        try:
            return Resource(kind, self.get(f"{_own(kind, self.namespace)}/{quote(name)}"))
        except NotFound:
            return None

    def read(self, kind: Kind, name: str) -> Resource:
        """Return a resource. Raises NotFound."""
        found = self.find(kind, name)
        if found is None:
            raise NotFound(self._missing(kind, name))
        return found

    def all(self, kind: Kind) -> list[Resource]:
        """Return all resources of a kind in the namespace, by name."""
        items = self.list(_own(kind, self.namespace))
        return sorted((Resource(kind, item) for item in items), key=lambda resource: resource.name)

    def every(self, kinds: Iterable[Kind] = KINDS) -> list[Resource]:
        """Return all resources of several kinds in the namespace: by kind, then by name.

        The cluster may be of an earlier release, which has not all of them. FineTuneJob is in each.
        """
        found: list[Resource] = []
        for kind in kinds:
            try:
                found += self.all(kind)
            except NotFound:
                if kind is FINETUNEJOB:
                    raise
        return found

    def apply(self, kind: Kind, manifest: Raw, *, dry_run: bool = False) -> Resource:
        """Create or change a resource by server-side apply; fields of other managers are taken over, as kubectl does.

        Raises:
            Invalid: if the API server refuses it; the sentence is its own.
        """
        path = f"{_own(kind, self.namespace)}/{quote(manifest['metadata']['name'])}"
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **_dry(dry_run)}
        return Resource(kind, self.request("PATCH", path, query=query, body=manifest, content_type=_APPLY))

    def patch(self, resource: Resource, patch: Raw, *, dry_run: bool = False) -> Resource:
        """Change a resource by a merge patch."""
        path = f"{_own(resource.kind, resource.namespace or self.namespace)}/{quote(resource.name)}"
        query = {"fieldManager": FIELD_MANAGER, **_dry(dry_run)}
        return Resource(resource.kind, self.request("PATCH", path, query=query, body=patch, content_type=_MERGE))

    def delete(self, resource: Resource) -> None:
        """Delete a resource."""
        self.request("DELETE", f"{_own(resource.kind, resource.namespace or self.namespace)}/{quote(resource.name)}")

    # Anything

    def get(self, path: str) -> Raw:
        """Return one object or document. Raises NotFound."""
        return self.request("GET", path)

    def list(self, path: str, selector: str = "") -> list[Raw]:
        """Return the items of a list. Raises NotFound if the API server has no such kind."""
        items = self.request("GET", path, query={"labelSelector": selector} if selector else None)["items"]
        return [dict(item) for item in items]

    def in_namespace(self, plural: str, group: str = "api/v1") -> str:
        """Return the path of a kind in the namespace."""
        return f"/{group}/namespaces/{self.namespace}/{plural}"

    def may(self, verb: str, resource: str, group: str = "", *, namespaced: bool = True) -> bool:
        """Tell whether the user may do this, by a SelfSubjectAccessReview."""
        plural, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
        if namespaced:
            attributes["namespace"] = self.namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self.request("POST", path, body=review).get("status", {}).get("allowed"))

    def log(self, pod: str, container: str, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """Return the lines of a container's log as they come."""
        query = {"container": container, "follow": str(follow).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        path = f"{self.in_namespace('pods')}/{quote(pod)}/log"
        # A log may be silent for hours.
        response = self._send("GET", path, query, None, "application/json", None if follow else _TIMEOUT_S)
        pending = b""
        for chunk in response.stream(65536):
            *lines, pending = (pending + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        if pending:
            yield pending.decode(errors="replace")

    def post_to_service(self, service: str, port: int, path: str, body: Raw, timeout_s: float) -> Raw:
        """Send a request to a Service through the API server, which reaches what is not reached from here."""
        proxied = f"{self.in_namespace('services')}/{quote(service)}:{port}/proxy/{path.lstrip('/')}"
        return self.request("POST", proxied, body=body, timeout_s=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Raw | None = None,
        content_type: str = "application/json",
        timeout_s: float = _TIMEOUT_S,
    ) -> Raw:
        """Send a request and return the answer's JSON.

        Raises:
            LuthierError: one of its kinds, for any answer that is not a success.
        """
        answer = self._send(method, path, query, body, content_type, timeout_s).data
        try:
            found = json.loads(answer)
        except ValueError:
            raise Unreachable(
                f"{self.server} answers something else than the Kubernetes API; check --context."
            ) from None
        if not isinstance(found, dict):
            return {"items": found}
        for each in (found, *(found.get("items") or [])):
            _drop_managed_fields(each)
        return found

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Raw | None,
        content_type: str,
        timeout_s: float | None,
    ) -> Any:
        """Return the response, whose body is not read yet."""
        from kubernetes.client.exceptions import ApiException

        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json, */*", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*request, _request_timeout=timeout_s)
        except (urllib3.exceptions.HTTPError, OSError, ApiException) as error:
            raise Unreachable(
                f"The API server at {self.server} does not answer ({_first_line(error)}); check --context."
            ) from error
        if not 200 <= answer.status <= 299:
            raise _refusal(answer.status, answer.response.data, path)
        return answer.response

    def _missing(self, kind: Kind, name: str) -> str:
        """Return the sentence on a resource that is not there, with those that are."""
        known = ", ".join(resource.name for resource in self.all(kind)[:8])
        there = f"there are: {known}" if known else "there are none; choose another namespace with -n"
        return f"There is no {kind.name} {name} in namespace {self.namespace}; {there}."


def connect(namespace: str | None = None, context: str | None = None, kubeconfig: Path | None = None) -> Cluster:
    """Return the cluster that a kubeconfig names, or the one in which this process runs.

    Args:
        namespace: Default: the context's own.
        context: Default: the current one.
        kubeconfig: Default: $KUBECONFIG, or ~/.kube/config.

    Raises:
        Unreachable: if there is no such context, or no kubeconfig at all.
    """
    # Half a second, which --help and init need not spend.
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration
    from kubernetes.config import ConfigException, list_kube_config_contexts, load_incluster_config, load_kube_config

    configuration = Configuration()
    configuration.retries = _RETRIES
    file = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or None
    path = file or str(Path.home() / ".kube" / "config")
    try:
        if file is None and not Path(path).exists() and (_IN_CLUSTER / "token").exists():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return Cluster(ApiClient(configuration), namespace or (_IN_CLUSTER / "namespace").read_text().strip())
        contexts, current = list_kube_config_contexts(path)  # type: ignore[no-untyped-call]
        chosen = next((entry for entry in contexts if entry["name"] == context), None) if context else current
        if chosen is None:
            known = ", ".join(entry["name"] for entry in contexts)
            raise NotFound(f"The kubeconfig has no context {context}; it has: {known}.")
        load_kube_config(  # type: ignore[no-untyped-call]
            path, context=context, client_configuration=configuration, persist_config=False
        )
    except (ConfigException, yaml.YAMLError, OSError) as error:
        raise Unreachable(
            f"No cluster is configured ({_first_line(error)}); set KUBECONFIG or give --kubeconfig."
        ) from error
    return Cluster(ApiClient(configuration), namespace or chosen["context"].get("namespace") or "default")


def _own(kind: Kind, namespace: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{kind.plural}"


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


def _refusal(status: int, body: bytes, path: str) -> LuthierError:
    """Return the error that an answer stands for."""
    try:
        document = json.loads(body)
    except ValueError:
        document = {}
    said = document.get("message") or document.get("error") if isinstance(document, dict) else None
    sentence = str(said or body.decode(errors="replace").strip() or f"status {status}")
    if status == 404:
        ours = any(f"/{kind.plural}" in path for kind in KINDS) and not said
        return NotFound(NOT_INSTALLED if ours else sentence)
    if status == 401:
        return Denied(f"The API server does not accept your credentials ({sentence}); log in again.")
    if status == 403:
        return Denied(f"{sentence.rstrip('.')}; ask whoever runs the cluster for this right.")
    if status in (400, 413, 415, 422):
        return Invalid(sentence)
    return Unreachable(sentence) if status >= 500 else LuthierError(sentence)


def _drop_managed_fields(raw: object) -> None:
    """As kubectl does: who wrote which field is of use to no reader here, and half of the text."""
    if isinstance(raw, dict) and isinstance(raw.get("metadata"), dict):
        raw["metadata"].pop("managedFields", None)
