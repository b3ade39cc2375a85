"""Who may ask, what names a request, and what is answered before the server: through Ray's proxy, as in the image."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from luthier_api.documents import Route, ServerConfig
from support.serving.local_ray import LocalRay
from support.serving.rotation import TEXT, Clients, bearer
from support.serving.tls_proxy import tls_proxy
from support.temporary_keys import MountedSecret

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


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


@pytest.fixture(autouse=True)
def both_keys(guarded: LocalRay, secret: MountedSecret) -> None:
    """Each test begins with k1 and k2 in force."""
    secret.replace(first="k1\n", second="k2")
    guarded.wait_until(lambda: status_of(guarded, bearer("k2")) == 200, 20)


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
    clients = Clients(f"{guarded.url}/predict")
    await clients.rotate(secret, "k1", "k3", "k4")
    print(dict(clients.answers))
    assert clients.statuses() == {"valid": {200}, "nobody": {401}, "stranger": {401}}
    assert clients.answers["valid", 200] >= 200


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


async def test_by_https_through_another_proxy_answers_are_the_same(guarded: LocalRay, tmp_path: Path) -> None:
    with tls_proxy(tmp_path / "tls", guarded.http_port) as (outside, trust):
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{guarded.url}/predict", json=TEXT, headers=bearer("k2")) as reply:
                inside = await reply.json()
            async with session.post(f"{outside}/predict", json=TEXT, headers=bearer("k2"), ssl=trust) as reply:
                assert (reply.status, await reply.json()) == (200, inside)
            async with session.post(f"{outside}/predict", json=TEXT, ssl=trust) as reply:
                assert reply.status == 401
