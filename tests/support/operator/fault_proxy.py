"""A proxy before the API server that counts all requests and, on command, gives the operator every trouble there is.

It ends TLS with a certificate of its own authority and sends everything on, watches line by line. Each fault names the
requests it is for and how often; without one, the proxy is not noticed. It runs an event loop in a thread of its own,
so that tests and `make soak` can talk to it from ordinary code.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml
from aiohttp import web

from luthier_dev.pki import Authority

T = TypeVar("T")
Raw = dict[str, Any]
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
GARBAGE = "<html><body><h1>502 Bad Gateway</h1>nginx</body></html>"


@dataclass
class Record:
    """One request, and what became of it."""

    at: float
    method: str
    path: str
    query: dict[str, str]
    body: Any = None
    token: str = ""
    status: int = 0
    """What the client was answered; 0 as long as it was not, or if the proxy cut the connection."""

    @property
    def watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def write(self) -> bool:
        return self.method in WRITES

    @property
    def plural(self) -> str:
        """Which kind of object it is about."""
        parts = self.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        parts = parts[2:] if parts[:1] == ["namespaces"] and len(parts) > 2 else parts
        return parts[0] if parts else ""

    def __str__(self) -> str:
        what = " ".join([self.method, self.path.removeprefix("/apis/").removeprefix("/api/")])
        return what + (" (watch)" if self.watch else "")


@dataclass
class Fault:
    """What happens to the requests that `to` picks, `times` times."""

    to: Callable[[Record], bool]
    times: int = 1
    answer: int = 0
    """Answer this status without asking the API server."""
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    content_type: str = "application/json"
    delay_s: float = 0.0
    """Wait before anything else is done."""
    silence_s: float = 0.0
    """Say nothing for so long, then close the connection; the API server is not asked."""
    cut_after_bytes: int | None = None
    """Send so many bytes of the API server's answer, then close the connection."""
    lose_answer: bool = False
    """Have the request carried out, and close the connection before the answer."""
    seen: list[Record] = field(default_factory=list)


@dataclass(eq=False)
class _Stream:
    """A watch that is open."""

    record: Record
    response: web.StreamResponse
    transport: asyncio.Transport
    deaf: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


Hook = Callable[[Record], Awaitable[None]]


class FaultProxy:
    """A proxy to the API server of a kubeconfig."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        """Start. `kubeconfig` is the administrator's; `folder` is for certificates."""
        config = yaml.safe_load(kubeconfig.read_text())
        self._config, self.folder = config, folder
        self._server: str = config["clusters"][0]["cluster"]["server"]
        self._upstream_tls, self._admin_tls = _client_tls(config, admin=False), _client_tls(config, admin=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(folder)
        pair = self._authority.issue("proxy", "fault-proxy", hosts=["127.0.0.1", "localhost"])
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(pair.certificate, pair.key)
        self.records: list[Record] = []
        self.before_write: Hook | None = None
        self.after_write: Hook | None = None
        """Called when a write was carried out, before the answer is sent. It may kill whoever waits for it."""
        self._faults: list[Fault] = []
        self._streams: set[_Stream] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self.call(self._start())

    # From the test's thread

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 60) -> T:
        """Run something in the proxy's loop, and wait for it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout=timeout_s)

    def close(self) -> None:
        self.call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def kubeconfig(self, original: Path, path: Path, token_file: Path | None = None) -> Path:
        """Write a kubeconfig of the same user that leads through the proxy; the token may lie in a file of its own."""
        config = yaml.safe_load(original.read_text())
        cluster = {"server": self.url, "certificate-authority": str(self._authority.pair.certificate)}
        config["clusters"][0]["cluster"] = cluster
        if token_file:
            token_file.write_text(config["users"][0]["user"].pop("token"))
            config["users"][0]["user"] = {"tokenFile": str(token_file)}
        path.write_text(yaml.safe_dump(config))
        return path

    def fault(self, to: Callable[[Record], bool], **what: Any) -> Fault:
        """Have a fault from now on; the first fault that picks a request and is not used up has it."""
        fault = Fault(to, **what)
        self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Drop all faults."""
        self._faults.clear()

    def cut_watches(self, *, mid_line: bool = False) -> int:
        """Close the connections of all watches, in the middle of a line or between two; return of how many."""
        return self.call(self.cut(mid_line=mid_line))

    def send_to_watches(self, line: bytes, to: Callable[[Record], bool] = lambda record: True) -> int:
        """Send a line to open watches, as an event of the API server's, and end them; return how many that were."""
        return self.call(self.send(line, to))

    def deafen(self, to: Callable[[Record], bool] = lambda record: True) -> int:
        """Keep back all events from the watches that are open now, for as long as they are; return how many."""
        streams = [stream for stream in self._streams if to(stream.record)]
        for stream in streams:
            stream.deaf = True
        return len(streams)

    @property
    def writes(self) -> list[Record]:
        return [record for record in self.records if record.write]

    @property
    def watching(self) -> Counter[str]:
        """How many watches of each kind are open."""
        return Counter(stream.record.plural for stream in list(self._streams))

    def busiest_second(self, since: float = 0.0) -> int:
        """Return the most requests that came within one second."""
        times = sorted(record.at for record in list(self.records) if record.at >= since)
        most, first = 0, 0
        for last, at in enumerate(times):
            while at - times[first] > 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most

    # In the proxy's loop

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, Raw]:
        """Ask the API server itself, as administrator; return its status and what it answers."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        async with self._admin.request(
            method, f"{self._server}{path}", data=data, headers={"Content-Type": kind}
        ) as answer:
            return answer.status, dict(await answer.json())

    async def _start(self) -> None:
        unlimited = aiohttp.ClientTimeout(total=None)
        self._upstream = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._upstream_tls), timeout=unlimited
        )
        self._admin = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=self._admin_tls))
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self.cut()
        await self._runner.cleanup()
        # Requests that are kept waiting, of operators that are gone, hold connections.
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._upstream.close()
        await self._admin.close()
        # Connections with TLS end a little later, as the documentation of aiohttp says (Graceful shutdown).
        await asyncio.sleep(0.25)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        token = request.headers.get("Authorization", "").partition(" ")[2]
        record = Record(time.monotonic(), request.method, request.path, dict(request.query), _parsed(body), token)
        self.records.append(record)
        fault = self._take(record)
        if fault and fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault and fault.silence_s:
            await asyncio.sleep(fault.silence_s)
            return _cut(request)
        if fault and fault.answer:
            record.status = fault.answer
            text = fault.body if fault.body is not None else _status(fault.answer)
            return web.Response(status=fault.answer, headers=fault.headers, text=text, content_type=fault.content_type)
        if record.write and self.before_write:
            await self.before_write(record)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length", "connection", "accept-encoding", "transfer-encoding")
        }
        try:
            async with self._upstream.request(
                request.method, f"{self._server}{request.raw_path}", headers=headers, data=body or None
            ) as answer:
                if record.watch and answer.status == 200:
                    return await self._stream(request, record, answer)
                return await self._answer(request, record, answer, fault)
        except aiohttp.ClientError:
            return _cut(request)  # as the API server did

    async def _answer(
        self, request: web.Request, record: Record, answer: aiohttp.ClientResponse, fault: Fault | None
    ) -> web.StreamResponse:
        content = await answer.read()
        if record.write and answer.status < 400 and self.after_write:
            await self.after_write(record)
        if fault and fault.lose_answer:
            return _cut(request)
        record.status = answer.status
        headers = {k: v for k, v in answer.headers.items() if k in ("Content-Type", "Retry-After", "Audit-Id")}
        if fault and fault.cut_after_bytes is not None:
            response = web.StreamResponse(status=answer.status, headers=headers)
            response.content_length = len(content)
            await response.prepare(request)
            await response.write(content[: fault.cut_after_bytes])
            _cut(request)
            return response
        return web.Response(status=answer.status, headers=headers, body=content)

    async def _stream(self, request: web.Request, record: Record, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": answer.headers["Content-Type"]})
        await response.prepare(request)
        record.status = 200
        assert isinstance(request.transport, asyncio.Transport)
        stream = _Stream(record, response, request.transport)
        self._streams.add(stream)
        sending = asyncio.ensure_future(_send_on(answer, stream))
        ending = asyncio.ensure_future(stream.ended.wait())
        try:
            await asyncio.wait({sending, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.discard(stream)
            sending.cancel()
            ending.cancel()
            await asyncio.gather(sending, ending, return_exceptions=True)
        return response

    async def cut(self, *, mid_line: bool = False) -> int:
        streams = list(self._streams)
        for stream in streams:
            if mid_line:
                await stream.response.write(b'{"type":"MODIFIED","object":{"kind":"FineTu')
            stream.ended.set()
            stream.transport.close() if mid_line else stream.transport.abort()
        return len(streams)

    async def send(self, line: bytes, to: Callable[[Record], bool] = lambda record: True) -> int:
        streams = [stream for stream in self._streams if to(stream.record)]
        for stream in streams:
            await stream.response.write(line + b"\n")
            stream.ended.set()
        return len(streams)

    def _take(self, record: Record) -> Fault | None:
        for fault in self._faults:
            if len(fault.seen) < fault.times and fault.to(record):
                fault.seen.append(record)
                return fault
        return None


async def _send_on(answer: aiohttp.ClientResponse, stream: _Stream) -> None:
    """Send the events of a watch on, whole lines at a time."""
    partial = b""
    async for chunk in answer.content.iter_any():
        *lines, partial = (partial + chunk).split(b"\n")
        if lines and not stream.deaf:
            await stream.response.write(b"\n".join([*lines, b""]))


def _cut(request: web.Request) -> web.Response:
    if request.transport:
        assert isinstance(request.transport, asyncio.Transport)
        request.transport.abort()
    return web.Response()


def _parsed(body: bytes) -> Any:
    return json.loads(body) if body else None


def _status(code: int) -> str:
    reasons = {401: "Unauthorized", 409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
    return json.dumps({**status, "reason": reasons.get(code, ""), "message": f"the fault proxy says {code}"})


def _client_tls(config: Raw, *, admin: bool) -> ssl.SSLContext:
    """Trust the API server; with the administrator's certificate, or without one, so that a token counts."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    if admin:
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
    return context
