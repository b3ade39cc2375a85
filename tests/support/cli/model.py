"""A served model, played: the Service of a ModelDeployment, behind which a server of this machine answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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
    # Its proxy goes to addresses that are a pod's own, and to no others.
    target = {"kind": "Pod", "namespace": namespace.name, "name": _pod(namespace, name, address)}
    addresses = [{"ip": address, "targetRef": target}]
    subset = {"addresses": addresses, "ports": [{"name": "serve", "port": server.server_address[1]}]}
    namespace.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}})
    namespace.apply({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [subset]})
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pod(namespace: Any, name: str, address: str) -> str:
    namespace.until("its service account", lambda: namespace.all("serviceaccounts"))
    pod, container = f"{name}-played-model", {"name": "main", "image": "i"}
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": {"containers": [container]}})
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    namespace.merge("pod", pod, {"status": status}, status=True)
    return pod
