"""Stores and servers that misbehave on purpose, in front of real ones."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from luthier_artifacts.store import Body, ObjectInfo, ObjectStore, Progress
from luthier_dev.pki import Authority


class Killed(BaseException):
    """The process is gone; nothing after this may reach the store, no clean-up either."""


class Interposed(ObjectStore):
    """Passes every request on, one at a time, with a call before and after it: hook(when, operation, key)."""

    def __init__(self, inner: ObjectStore, hook: Callable[[str, str, str], None]) -> None:
        self.inner = inner
        self.hook = hook
        self.at_once = inner.concurrency

    @property
    def uri(self) -> str:
        return self.inner.uri

    @property
    def concurrency(self) -> int:
        return self.at_once

    def _call(self, operation: str, key: str, call: Callable[[], object]) -> object:
        self.hook("before", operation, key)
        try:
            return call()
        finally:
            self.hook("after", operation, key)

    def stat(self, key: str) -> ObjectInfo:
        return self._call("stat", key, lambda: self.inner.stat(key))  # type: ignore[return-value]

    def read(self, key: str) -> tuple[bytes, str]:
        return self._call("read", key, lambda: self.inner.read(key))  # type: ignore[return-value]

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> Body:
        return self._call("range", key, lambda: self.inner.read_range(key, start, length, etag=etag))  # type: ignore[return-value]

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        return self._call(  # type: ignore[return-value]
            "write", key, lambda: self.inner.write(key, data, if_absent=if_absent, if_match=if_match)
        )

    def upload(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        for key, path in files.items():
            self._call("write", key, lambda key=key, path=path: self.inner.upload({key: path}, progress))

    def delete(self, keys: Collection[str]) -> None:
        for key in keys:
            self._call("write", key, lambda key=key: self.inner.delete([key]))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._call("list", prefix, lambda: list(self.inner.list(prefix))))  # type: ignore[call-overload]


class MortalStore(Interposed):
    """Kills its process at one write, before it takes effect or after; writes of the probe do not count."""

    def __init__(self, inner: ObjectStore, at_write: int, when: str) -> None:
        super().__init__(inner, self._maybe_die)
        self.writes = 0
        self.dead = False
        self._at = at_write
        self._when = when

    def _maybe_die(self, when: str, operation: str, key: str) -> None:
        if self.dead:
            raise Killed
        if operation != "write" or key.endswith(".probe"):
            return
        self.writes += when == "before"
        if when == self._when and self.writes == self._at:
            self.dead = True
            raise Killed


@pytest.fixture
def faults() -> SimpleNamespace:
    """The classes above; tests cannot import from a conftest."""
    return SimpleNamespace(Killed=Killed, Interposed=Interposed, MortalStore=MortalStore)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small folder like a model's."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    return folder


class FaultyServer:
    """An S3 endpoint in front of the real one that signs each request anew, so that it may change it.

    `fault` is called with the handler before a request goes on; when it returns True it has dealt with the request.
    """

    def __init__(self, s3, tls: ssl.SSLContext | None = None) -> None:
        self.fault: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False
        self.drop_headers: frozenset[str] = frozenset()
        self.requests: list[str] = []
        self._s3 = s3
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
            self.endpoint = self.endpoint.replace("http:", "https:")
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def forward(self, handler: BaseHTTPRequestHandler) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send the request on, and return status, headers and body of the answer."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        left_out = {"authorization", "host", "x-amz-date", "x-amz-content-sha256", "content-length", "expect"}
        headers = {
            name: value
            for name, value in handler.headers.items()
            if name.lower() not in left_out | self.drop_headers and not name.lower().startswith("amz-sdk")
        }
        target = urlsplit(self._s3.endpoint)
        request = AWSRequest(handler.command, f"{self._s3.endpoint}{handler.path}", headers, body)
        credentials = Credentials(self._s3.access_key, self._s3.secret_key)
        S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection(target.hostname, target.port)
        try:
            connection.request(handler.command, handler.path, body, dict(request.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                server.requests.append(f"{self.command} {self.path}")
                if not server.fault(self):
                    self.answer(*server.forward(self))

            def answer(
                self, status: int, headers: list[tuple[str, str]], body: bytes, cut_at: int | None = None
            ) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                if not any(name.lower() == "content-length" for name, _ in headers):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[:cut_at])
                if cut_at is not None:
                    self.cut()

            def cut(self) -> None:
                """Close the connection in the middle of an answer, or before it."""
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

        return Handler


@pytest.fixture
def faulty_server(s3) -> Iterator[FaultyServer]:
    """A server whose faults the test chooses; behind it is the real one."""
    server = FaultyServer(s3)
    yield server
    server.close()


@pytest.fixture
def tls_server(s3, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Endpoint of a server with a certificate of a private authority, and the authority's certificate."""
    (tmp_path / "pki").mkdir()
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("s3", "s3", hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server = FaultyServer(s3, context)
    yield server.endpoint, authority.pair.certificate
    server.close()
