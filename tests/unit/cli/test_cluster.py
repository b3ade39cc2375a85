"""The API server as it answers in trouble: what is asked again, and what is told at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from luthier.cluster import Cluster, connect
from luthier.errors import LuthierError, Unreachable

pytestmark = pytest.mark.unit

BUSY = b'{"kind":"Status","code":429,"message":"storage is (re)initializing"}'


class ApiServer(HTTPServer):
    """Answers 429 to the first requests, and an empty list to those after them."""

    busy: int
    asked: int = 0


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        self.server.asked += 1
        busy = self.server.asked <= self.server.busy
        body = BUSY if busy else b'{"items":[]}'
        self.send_response(429 if busy else 200)
        self.send_header("Content-Length", str(len(body)))
        if busy:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api_server() -> Iterator[ApiServer]:
    with ApiServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def connected(folder: Path, port: int) -> Cluster:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return connect(kubeconfig=path)


def test_a_server_that_says_to_come_again_is_asked_again(api_server: ApiServer, tmp_path: Path) -> None:
    api_server.busy = 3
    assert connected(tmp_path, api_server.server_port).every() == []
    assert api_server.asked == 6, "three kinds, and three times in vain"


def test_a_server_that_stays_busy_is_told_in_its_own_words(api_server: ApiServer, tmp_path: Path) -> None:
    api_server.busy = 99
    with pytest.raises(LuthierError, match=r"storage is \(re\)initializing"):
        connected(tmp_path, api_server.server_port).every()
    assert api_server.asked == 4


def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match="does not answer") as told:
        connected(tmp_path, port).every()
    assert "Max retries" not in str(told.value)
