"""What a server that speaks gRPC has beside the others: options of Ray Serve, a port of the workers, a Service."""

from typing import Any

from luthier_api.documents import GRPC_PORT
from luthier_operator.manifests import pods
from luthier_operator.model import names
from luthier_operator.model.views import Meta

# The server says by itself what it has, in ServerMetadata and ModelMetadata, so it needs no reflection.
OPTIONS = {
    "port": GRPC_PORT,
    "grpc_servicer_functions": ["luthier_serving.inference:add_service"],
    "enable_reflection": False,
}
# Ray Serve opens gRPC when its cluster starts or not at all. A port of the workers makes KubeRay build another cluster.
WORKER_PORTS = [{"name": "grpc", "containerPort": GRPC_PORT}]


def service(owner: Meta) -> dict[str, Any]:
    """Return the Service for gRPC: KubeRay's own one has the port for HTTP and takes no other.

    A worker is ready when the proxy on it reaches a replica, over gRPC as over HTTP. The Service never changes; when
    the server no longer speaks gRPC, it stays, and nothing answers there.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.grpc_service(owner.name),
            "namespace": owner.namespace,
            "labels": names.labels("server", **{names.MODELDEPLOYMENT: owner.name}),
            "ownerReferences": [pods.owner_reference(owner)],
        },
        "spec": {
            "selector": {names.MODELDEPLOYMENT: owner.name, names.COMPONENT: "worker"},
            "ports": [{"name": "grpc", "port": GRPC_PORT, "targetPort": GRPC_PORT, "appProtocol": "kubernetes.io/h2c"}],
        },
    }
