"""How the operator gets to the API server: where it is, whom to trust, who we are; and the sessions made of that.

Read from $KUBECONFIG, the pod's service account or ~/.kube/config, by the client library. Read again when the token may
have been replaced: a pod's is rotated on disk, so a token that was read once is refused after an hour.
"""

import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

# The kubelet renews a token after 80 % of its life, which is ten minutes at the least.
_RENEW_S = 60.0
_AFTER_REFUSAL_S = 1.0

# A peer that is gone without a word is noticed after 30 s. What is read slowly is not cut off by these.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Access:
    """Address, trust and identity, as they are now."""

    def __init__(self, configuration: Configuration) -> None:
        """Use what `from_environment` loaded."""
        self._configuration = configuration
        self._read_at = time.monotonic()

    @classmethod
    async def from_environment(cls) -> "Access":
        """Read $KUBECONFIG if set, otherwise the pod's service account, otherwise ~/.kube/config."""
        return cls(await _load())

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._configuration.host).rstrip("/")

    async def authorization(self) -> dict[str, str]:
        """Return the header that says who we are; empty if a certificate does."""
        if time.monotonic() - self._read_at > _RENEW_S:
            await self._renew()
        token = self._configuration.api_key.get("BearerToken")
        return {"Authorization": token} if token else {}

    async def refused(self) -> None:
        """Read the token again: the API server does not accept it any more."""
        if time.monotonic() - self._read_at > _AFTER_REFUSAL_S:
            await self._renew()

    def session(self, traces: Sequence[aiohttp.TraceConfig] = ()) -> aiohttp.ClientSession:
        """Return a new session of connections; who we are is said with each request."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls(), socket_factory=_socket)
        proxy = self._configuration.proxy
        return aiohttp.ClientSession(connector=connector, proxy=proxy, trust_env=False, trace_configs=list(traces))

    def _tls(self) -> ssl.SSLContext:
        known = self._configuration
        context = ssl.create_default_context(cafile=known.ssl_ca_cert, cadata=known.ca_cert_data)
        if known.cert_file:
            context.load_cert_chain(known.cert_file, keyfile=known.key_file)
        if not known.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def _renew(self) -> None:
        self._read_at = time.monotonic()
        self._configuration = await _load()


async def _load() -> Configuration:
    configuration = Configuration()
    if not os.environ.get("KUBECONFIG") and Path(SERVICE_TOKEN_FILENAME).exists():
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        # The library looks at $KUBECONFIG only when it is imported.
        file = os.environ.get("KUBECONFIG")
        await load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # What was not yet sent when the process ends is not sent later on, when another operator may be at work.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for option, value in _KEEPALIVE:
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
