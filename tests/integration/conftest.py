"""A real API server for the integration tests (luthier_dev.controlplane), and S3 servers that misbehave on purpose."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from luthier_dev.controlplane import ControlPlane
from luthier_dev.pki import Authority
from support.faulty_s3 import FaultyServer
from support.s3 import S3

if TYPE_CHECKING:
    from support.browser import Browser

HERE = Path(__file__).parent
# What takes minutes in one process: first, so that no process is left with it at the end.
LONGEST = ("operator", "serving", "trainer/test_two_processes.py", "trainer/test_survival.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(_group(item.path.relative_to(HERE))))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    group = _group(item.path.relative_to(HERE)) if HERE in item.path.parents else ""
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)


def _group(file: Path) -> str:
    """Return what runs in one process: played pods share loopback addresses, and two Rays share a port."""
    return file.parts[0] if file.parts[0] in ("operator", "serving") else str(file)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager as processes; one set for the whole session."""
    with ControlPlane() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium, for the tests of a module."""
    from support.browser import find_browser, start_browser

    if find_browser() is None:
        pytest.skip("there is no chromium; `apt-get install chromium` brings it")
    with start_browser() as running:
        yield running


@pytest.fixture
def faulty_server(s3: S3) -> Iterator[FaultyServer]:
    """A server whose faults the test chooses; behind it is the real one."""
    server = FaultyServer(s3)
    yield server
    server.close()


@pytest.fixture
def tls_server(s3: S3, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Endpoint of a server with a certificate of a private authority, and the authority's certificate."""
    (tmp_path / "pki").mkdir()
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("s3", "s3", hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server = FaultyServer(s3, context)
    yield server.endpoint, authority.pair.certificate
    server.close()
