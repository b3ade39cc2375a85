"""How the operator reaches the API server: where it is, whom to trust, who we are; and the connections made of that.

Read from $KUBECONFIG, the pod's service account or ~/.kube/config, by the client library. Credentials are read again
when they may have been replaced: a pod's token is rotated on disk, so one that was read once is refused after an hour.

Two sessions are made here: the client library's, for our own requests, and kopf's, for its lists and watches. What
happens at every request of either, counting and keeping the pace, hangs on them as aiohttp traces.
"""

import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from luthier_operator.ops import metrics

# The kubelet renews a token after 80 % of its life, which is ten minutes at the least.
_RENEW_S = 60.0
_AFTER_REFUSAL_S = 1.0

# A peer that is gone without a word is noticed after 30 s. Slow readers are not cut off by these.
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
        """Read the credentials again: the API server does not accept them any more."""
        if time.monotonic() - self._read_at > _AFTER_REFUSAL_S:
            await self._renew()

    def client(self, traces: Sequence[aiohttp.TraceConfig] = ()) -> ApiClient:
        """Return a new client; `authorization` goes with each request."""
        client = ApiClient(self._configuration)
        rest = client.rest_client
        rest.pool_manager = self._session(rest.ssl_context, traces)
        return client

    def session(self, traces: Sequence[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        """Return a new session for somebody else's requests, each of which says who we are."""
        authorizing = aiohttp.TraceConfig()
        authorizing.on_request_start.append(self._authorize)
        return self._session(RESTClientObject(self._configuration).ssl_context, [authorizing, *traces])

    async def _authorize(
        self, _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        request.headers.update(await self.authorization())

    def _session(self, tls: ssl.SSLContext, traces: Sequence[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, ssl=tls, socket_factory=_socket)
        return aiohttp.ClientSession(
            connector=connector,
            proxy=self._configuration.proxy,
            trust_env=False,
            trace_configs=[counting(), *traces],
        )

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


def counting() -> aiohttp.TraceConfig:
    """Return what counts the requests of a session by verb and answer."""
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(_answered)
    trace.on_request_exception.append(_failed)
    return trace


async def _answered(_: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestEndParams) -> None:
    metrics.REQUESTS.labels(_verb(request.method, request.url.query.get("watch")), str(request.response.status)).inc()


async def _failed(_: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestExceptionParams) -> None:
    metrics.REQUESTS.labels(_verb(request.method, request.url.query.get("watch")), "none").inc()


_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


def _verb(method: str, watch: str | None) -> str:
    return "watch" if watch else _VERBS[method.upper()]
