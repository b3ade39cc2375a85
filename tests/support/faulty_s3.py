"""An S3 endpoint that misbehaves on purpose, in front of a real one."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.s3 import S3

TOKEN_HEADER = "x-amz-security-token"


class FaultyServer:
    """Signs each request anew, so that it may change it.

    `fault` is called with the handler before a request goes on; when it returns True it has dealt with the request.
    """

    def __init__(self, s3: S3, tls: ssl.SSLContext | None = None) -> None:
        self.fault: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False
        self.drop_headers: frozenset[str] = frozenset()
        self.requests: list[str] = []
        self._s3 = s3
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        # A client that is killed has nothing to say.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
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
        left_out |= {TOKEN_HEADER}
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
