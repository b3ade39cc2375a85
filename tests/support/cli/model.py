"""A served model, played: the Service of a ModelDeployment, behind which a server of this machine answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from luthier_dev.kubectl import KubectlFailed


class _Handler(BaseHTTPRequestHandler):
    """Answers /predict as the server does."""

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["texts"]
        answers = [{"input_text": text, "prediction": _label(text), "confidence": 0.97} for text in texts]
        status, answer = 200, {"predictions": answers}
        if "" in texts:
            status, answer = 422, {"error": "texts[0] is empty; send at least one character."}  # type: ignore[dict-item]
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def _label(text: str) -> str:
    return "negative" if "broke" in text else "positive"


@contextmanager
def played_model(namespace: Any, name: str = "reviews") -> Iterator[None]:
    """Let the API server reach a model under the Service of this ModelDeployment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent; the API server's proxy refuses loopback
        address = probe.getsockname()[0]
    server = ThreadingHTTPServer((address, 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    metadata = {"name": f"{name}-serve-svc"}
    port = {"name": "serve", "port": 8000}
    subset = {"addresses": [{"ip": address}], "ports": [{"name": "serve", "port": server.server_address[1]}]}
    namespace.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}})
    owned = {"kubernetes.io/service-name": f"{name}-serve-svc"}
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-serve-svc-played", "labels": owned},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "serve", "port": server.server_address[1], "protocol": "TCP"}],
    }
    namespace.apply(slice_)
    namespace.apply({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [subset]})
    path = f"/api/v1/namespaces/{namespace.name}/services/{name}-serve-svc:8000/proxy/"
    namespace.until("the Service", lambda: _reached(namespace, path), timeout_s=20)
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _reached(namespace: Any, path: str) -> bool:
    try:
        namespace.kubectl("get", "--raw", path)
    except KubectlFailed:
        return False
    return True
