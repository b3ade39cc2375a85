"""The way in from outside the cluster: an HTTPRoute to a Gateway, or an Ingress, to the Service of a RayService.

The path that clients see is passed on as it is, and the server takes it off: rewriting it is an extension of the
Gateway API that not every controller has, and no part of Ingress at all.
"""

from typing import Any

from luthier_api.documents import SERVE_PORT
from luthier_api.exposure import Expose
from luthier_api.keys import digest_of
from luthier_operator.manifests import pods
from luthier_operator.model import names
from luthier_operator.model.routes import API_VERSIONS, RouteKind
from luthier_operator.model.views import Meta


def kind_of(expose: Expose) -> RouteKind:
    """Return which kind of object is the way in."""
    return "HTTPRoute" if expose.gateway else "Ingress"


def route(owner: Meta, expose: Expose) -> dict[str, Any]:
    """Return the HTTPRoute or the Ingress; an annotation holds a hash of it, so that it is not applied again."""
    kind = kind_of(expose)
    spec = _httproute(owner, expose) if kind == "HTTPRoute" else _ingress(owner, expose)
    annotations = dict(expose.ingress.annotations) if expose.ingress else {}
    return {
        "apiVersion": API_VERSIONS[kind],
        "kind": kind,
        "metadata": {
            "name": owner.name,
            "namespace": owner.namespace,
            "labels": names.labels("server", **{names.MODELDEPLOYMENT: owner.name}),
            "annotations": {
                **annotations,
                names.SPEC_HASH: digest_of({"spec": spec, "annotations": annotations}),
            },
            "ownerReferences": [pods.owner_reference(owner)],
        },
        "spec": spec,
    }


def hash_of(manifest: dict[str, Any]) -> str:
    """Return the hash that the manifest carries."""
    return str(manifest["metadata"]["annotations"][names.SPEC_HASH])


def _httproute(owner: Meta, expose: Expose) -> dict[str, Any]:
    gateway = expose.gateway
    assert gateway
    parent = {"name": gateway.name, "namespace": gateway.namespace, "sectionName": gateway.section_name}
    return {
        "parentRefs": [{key: value for key, value in parent.items() if value}],
        "hostnames": list(expose.hostnames),
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": expose.path}}],
                "backendRefs": [{"name": names.serve_service(owner.name), "port": SERVE_PORT}],
            }
        ],
    }


def _ingress(owner: Meta, expose: Expose) -> dict[str, Any]:
    options = expose.ingress
    assert options
    service = {"name": names.serve_service(owner.name), "port": {"number": SERVE_PORT}}
    path = {"path": expose.path, "pathType": "Prefix", "backend": {"service": service}}
    spec: dict[str, Any] = {"rules": [{"host": host, "http": {"paths": [path]}} for host in expose.hostnames]}
    if options.class_name:
        spec["ingressClassName"] = options.class_name
    if expose.tls:
        secret = {"secretName": expose.tls.secret_name} if expose.tls.secret_name else {}
        spec["tls"] = [{"hosts": list(expose.hostnames), **secret}]
    return spec
