"""Asking a pod how it is. The pod may be broken or hostile: short time-outs, small answers, no redirects.

The address comes from the pod's status alone, which only its kubelet writes; port and path are fixed. So whoever may
make pods in a namespace can make the operator send this one request to that pod, and read nothing else with it.
"""

import ipaddress
import logging
import math
import socket
from itertools import islice
from typing import Annotated, Generic, Self, TypeVar

import aiohttp
from pydantic import AfterValidator, Field, model_validator

from luthier_api.base import Document
from luthier_api.documents import (
    SERVER_REPORT_PATH,
    SERVER_REPORT_PORT,
    TRAINER_PORT,
    ProgressDocument,
    ServerReport,
)
from luthier_operator.ops import metrics

MAX_BYTES = 64 * 1024
# With headers, and the frames of a body in chunks.
_MAX_RECEIVED_BYTES = 2 * MAX_BYTES
_MAX_LINE_BYTES = 4096
_READ_BYTES = 16 * 1024
_MAX_METRICS = 64
_MAX_NAME = 128
logger = logging.getLogger(__name__)


def _readable(values: dict[str, float]) -> dict[str, float]:
    """Leave out what cannot be shown; what can is shown nevertheless."""
    kept = ((name, value) for name, value in values.items() if math.isfinite(value) and _is_name(name))
    return dict(islice(kept, _MAX_METRICS))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME and text.isprintable()


Figure = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class Answer(ProgressDocument):
    """A progress document that is possible, and small enough for a status, since a pod may say anything."""

    epoch: Figure = 0.0
    eta_seconds: Annotated[float, Field(ge=0, le=2**31 - 1, allow_inf_nan=False)] | None = None
    examples_per_second: Figure | None = None
    tokens_per_second: Figure | None = None
    gpu_memory_bytes: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    metrics: Annotated[dict[str, float], AfterValidator(_readable)] = Field(default={})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.total_steps and self.step > self.total_steps:
            raise ValueError("more steps are done than there are")
        return self


DocumentT = TypeVar("DocumentT", bound=Document)


class PodReader(Generic[DocumentT]):
    """Reads one kind of document from pods."""

    def __init__(self, document: type[DocumentT], port: int, path: str, timeout_s: float = 2.0) -> None:
        """An answer that takes longer than `timeout_s` in all counts as none."""
        self._document, self._port, self._path = document, port, path
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def read(self, ip: str) -> DocumentT | None:
        """Return what the pod says, or None: a pod that says nothing may do its work all the same."""
        metrics.PROGRESS_REQUESTS.inc()
        try:
            content = await self._get(f"http://{_host(ip)}:{self._port}{self._path}")
            # The pod may be of a newer release than this operator: what is unknown is left out.
            return self._document.model_validate_json(content, extra="ignore")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            metrics.PROGRESS_FAILURES.inc()
            logger.debug("the pod at %r did not answer at %s: %r", ip, self._path, error)
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def _get(self, url: str) -> bytes:
        async with self._connected().get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"it answered {response.status}")
            content = bytearray()
            while len(content) <= MAX_BYTES and (more := await response.content.read(MAX_BYTES + 1 - len(content))):
                content += more
            if len(content) > MAX_BYTES:
                raise ValueError("its answer is longer than 64 KiB")
            return bytes(content)

    def _connected(self) -> aiohttp.ClientSession:
        """Return the session. Pods share nothing by it: no connection is kept, no cookie; and nothing is unpacked."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_bounded),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "luthier"},
                timeout=self._timeout,
                trust_env=False,
                auto_decompress=False,
                read_bufsize=_READ_BYTES,
                max_line_size=_MAX_LINE_BYTES,
                max_field_size=_MAX_LINE_BYTES,
            )
        return self._session


class ProgressReader(PodReader[Answer]):
    """Reads the progress of training pods."""

    def __init__(self, timeout_s: float = 2.0, port: int = TRAINER_PORT) -> None:
        super().__init__(Answer, port, "/progress", timeout_s)


class ReportReader(PodReader[ServerReport]):
    """Reads the reports of server replicas."""

    def __init__(self, timeout_s: float = 2.0, port: int = SERVER_REPORT_PORT) -> None:
        super().__init__(ServerReport, port, SERVER_REPORT_PATH, timeout_s)


class _Bounded(socket.socket):
    """A connection that breaks off when more comes than an answer can hold: also of what aiohttp reads by itself."""

    _left_bytes = _MAX_RECEIVED_BYTES

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive."""
        if self._left_bytes <= 0:
            raise ConnectionAbortedError("it sends more than an answer can hold")
        data = super().recv(min(size, self._left_bytes), flags)
        self._left_bytes -= len(data)
        return data


def _bounded(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    return _Bounded(family, kind, protocol)


def _host(ip: str) -> str:
    """Return an address as a URL holds it.

    Raises:
        ValueError: if no pod can have it. Cloud metadata services, for one, have a link-local address.
    """
    address = ipaddress.ip_address(ip)
    real = getattr(address, "ipv4_mapped", None) or address
    if real.is_link_local or real.is_multicast or real.is_unspecified or "%" in ip:
        raise ValueError("no pod has this address")
    return f"[{ip}]" if address.version == 6 else ip
