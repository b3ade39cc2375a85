"""A kubelet, as far as the API server asks one for logs: a node of the cluster whose pods have said a few lines."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from luthier_dev.pki import Authority

NODE = "played"


class _Handler(BaseHTTPRequestHandler):
    """Answers /containerLogs/NAMESPACE/POD/CONTAINER."""

    def do_GET(self) -> None:
        _, _, _, pod, container = self.path.split("?")[0].split("/")
        lines = [f"{pod} {container} line {number}" for number in range(3)]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(("\n".join(lines[-1:] if "tailLines=1" in self.path else lines) + "\n").encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def played_kubelet(cluster: Any, folder: Path) -> Iterator[None]:
    """Add a node whose kubelet has logs."""
    (folder / "kubelet").mkdir()
    pair = Authority(folder / "kubelet").issue("kubelet", "system:node:played", hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    cluster.kubectl(
        "apply", "-f", "-", stdin=f'{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{NODE}"}}}}'
    )
    endpoint = f'{{"kubeletEndpoint": {{"Port": {server.server_address[1]}}}}}'
    address = '[{"type": "InternalIP", "address": "127.0.0.1"}]'
    status = f'{{"status": {{"addresses": {address}, "daemonEndpoints": {endpoint}}}}}'
    cluster.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", status)
    try:
        yield
    finally:
        cluster.kubectl("delete", "node", NODE)
        server.shutdown()
        thread.join()
        server.server_close()


def pod_of(resource: str, name: str, component: str, kind: str = "finetunejob") -> dict[str, Any]:
    """Return a pod of a resource on that node."""
    labels = {f"luthier.dev/{kind}": resource, "app.kubernetes.io/component": component}
    container = {"name": "main", "image": "i"}
    spec = {"nodeName": NODE, "containers": [container], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
