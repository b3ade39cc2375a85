"""The server's HTTP as a real server on a port, behind a real proxy with TLS."""

from pathlib import Path

import pytest

from luthier_dev.processes import free_ports
from luthier_serving.replica.access import ApiKeys
from support.serving.doubles import respond
from support.serving.http_server import serving
from support.serving.rotation import Clients
from support.serving.tls_proxy import tls_proxy
from support.temporary_keys import MountedSecret

pytestmark = pytest.mark.unit


async def test_keys_rotated_under_load_by_https_fail_no_valid_request_and_serve_no_other(tmp_path: Path) -> None:
    secret, (port,) = MountedSecret(tmp_path / "keys", old="k1"), free_ports(1)
    with serving(respond, port, ApiKeys(secret.folder)), tls_proxy(tmp_path / "tls", port) as (url, trust):
        clients = Clients(f"{url}/predict", trust)
        await clients.rotate(secret, "k1", "k2")
    assert clients.statuses() == {"valid": {200}, "nobody": {401}, "stranger": {401}}
    assert clients.answers["valid", 200] >= 120
