"""From outside the cluster by https to a real model: the operator's route, a real proxy that follows it, a real server.

Only KubeRay is missing: a Service and its endpoint stand where it would make them.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from luthier_api.documents import RevisionConfig
from luthier_dev.pki import Authority
from luthier_dev.processes import free_ports
from luthier_dev.traefik import GATEWAY_CONTROLLER, INGRESS_CONTROLLER, Traefik, start_traefik
from luthier_serving.compute.model import open_model
from luthier_serving.replica.access import ApiKeys
from luthier_serving.replica.local_model import HeldModel
from support.operator.gateway_api import GROUP, gateway, install_gateway_api
from support.operator.kuberay import MODELDEPLOYMENT
from support.serving.artifact import make_artifact
from support.serving.http_server import serving
from support.temporary_keys import MountedSecret

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

HOST = "reviews.example.com"
DIGEST = "sha256:" + "0" * 64
CLASSES: list[dict[str, Any]] = [
    {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": "traefik"},
        "spec": {"controllerName": GATEWAY_CONTROLLER},
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "traefik"},
        "spec": {"controller": INGRESS_CONTROLLER},
    },
]


@dataclass(frozen=True)
class Outside:
    """A client outside: it trusts the certificate's authority, and reaches the proxy on loopback."""

    proxy: Traefik
    authority: Path

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        trust = ssl.create_default_context(cafile=str(self.authority))
        headers = {"Host": f"{HOST}:{self.proxy.port}", **request.pop("headers", {})}
        with httpx.Client(verify=trust, timeout=20) as client:
            url = f"https://127.0.0.1:{self.proxy.port}{path}"
            return client.request(method, url, headers=headers, extensions={"sni_hostname": HOST}, **request)


def own_address() -> str:
    """Return an address of this machine that an EndpointSlice may hold."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family.name == "AF_INET" and not each.address.startswith(("127.", "169.254.")):
                return str(each.address)
    pytest.skip("this machine has no address but loopback")


@pytest.fixture(scope="module")
def proxy(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traefik]:
    install_gateway_api(cluster, everything=True)
    for manifest in CLASSES:
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    running = start_traefik(tmp_path_factory.mktemp("traefik"), cluster.kubeconfig)
    yield running
    running.stop()
    print(running.log.read_text()[-5000:])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def outside(proxy: Traefik, authority: Authority, namespace: Any) -> Outside:
    """A client, and a certificate for the proxy in the namespace."""
    pair = authority.issue("web", HOST, hosts=[HOST])
    files = {"tls.crt": pair.certificate, "tls.key": pair.key}
    data = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certificate"}, "type": "kubernetes.io/tls"}
    namespace.apply({**secret, "data": data})
    return Outside(proxy, authority.pair.certificate)


def service(port: int) -> list[dict[str, Any]]:
    """Return what KubeRay keeps in front of a server's pods, and the endpoint of one."""
    name = "reviews-serve-svc"
    ports = [{"name": "serve", "port": 8000}]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}],
            "ports": [{"name": "serve", "port": port, "protocol": "TCP"}],
        },
    ]


def expose(namespace: Any, **way: Any) -> list[str]:
    """Expose the server; return the URLs once the way in is accepted."""
    resource = {**MODELDEPLOYMENT, "spec": {**MODELDEPLOYMENT["spec"], "expose": {"hostnames": [HOST], **way}}}
    namespace.apply(resource)

    def urls() -> list[str]:
        found: list[str] = namespace.get("mdep", "reviews").get("status", {}).get("urls", [])
        return found

    namespace.until("the way in to be accepted", urls)
    return urls()


@pytest.mark.parametrize("kind", ["gateway", "ingress"])
def test_a_client_outside_is_answered_by_https_with_a_key_and_turned_away_without(
    operator: Any, namespace: Any, outside: Outside, artifact: Path, tmp_path: Path, kind: str
) -> None:
    (port,) = free_ports(1)
    keys = ApiKeys(MountedSecret(tmp_path / "keys", team="k1").folder)
    config = RevisionConfig(name="rev-1", model_uri="s3://m/reviews/versions/v1", version="v1", digest=DIGEST)
    model = HeldModel(config, open_model(artifact, "onnxruntime", version="v1"), "replica-1")
    with serving(model.send, port, keys, path_prefix="/v1/reviews"):
        for manifest in service(port):
            namespace.apply(manifest)
        if kind == "gateway":
            tls = {"mode": "Terminate", "certificateRefs": [{"name": "certificate"}]}
            listener = {"name": "https", "protocol": "HTTPS", "port": outside.proxy.port, "tls": tls}
            namespace.apply(gateway("web", [listener], "traefik"))
            urls = expose(namespace, gateway={"name": "web"}, path="/v1/reviews")
            assert urls == [f"https://{HOST}:{outside.proxy.port}/v1/reviews"]
        else:
            urls = expose(
                namespace, ingress={"className": "traefik"}, path="/v1/reviews", tls={"secretName": "certificate"}
            )
            assert urls == [f"https://{HOST}/v1/reviews"]

        def answers() -> bool:
            return outside.ask("GET", "/v1/reviews/readyz").status_code == 200

        namespace.until("the proxy to have heard of it", answers)
        asked = {"json": {"text": "the film was good"}}
        refused = outside.ask("POST", "/v1/reviews/predict", **asked)
        assert refused.status_code == 401 and refused.headers["WWW-Authenticate"].startswith("Bearer")
        mine = {"Authorization": "Bearer k1", "X-Request-Id": "mine"}
        answered = outside.ask("POST", "/v1/reviews/predict", headers=mine, **asked)
        assert answered.status_code == 200 and answered.json()["version"] == "v1"
        assert answered.headers.get_list("X-Request-Id") == ["mine"]
        assert "<textarea" in outside.ask("GET", "/v1/reviews/", headers=mine).text
        assert outside.ask("GET", "/readyz").status_code == 404, "the proxy's: this path is not the server's"

        namespace.merge("mdep", "reviews", {"spec": {"expose": None}})
        namespace.until("the way in to be closed", lambda: outside.ask("GET", "/v1/reviews/readyz").status_code == 404)
