"""The way in from outside against a real API server and the real CRDs of the Gateway API; the tests are controllers."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from support.operator.gateway_api import gateway, install_gateway_api, judge, remove_gateway_api
from support.operator.kuberay import MODELDEPLOYMENT

pytestmark = pytest.mark.integration

HOST = "reviews.example.com"
LISTENERS = [
    {"name": "http", "protocol": "HTTP", "port": 80},
    {"name": "https", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [{"name": "certificate"}]}},
]
ACCEPTED = {"Accepted": ("True", "Accepted", ""), "ResolvedRefs": ("True", "ResolvedRefs", "")}


def deployment(**expose: Any) -> dict[str, Any]:
    resource = copy.deepcopy(MODELDEPLOYMENT)
    resource["spec"]["expose"] = {"hostnames": [HOST], **expose}
    return resource


def exposed(namespace: Any) -> tuple[str, str, str, list[str]]:
    status = namespace.get("mdep", "reviews").get("status", {})
    found = next((c for c in status.get("conditions", []) if c["type"] == "Exposed"), None)
    words = (found["status"], found["reason"], found["message"]) if found else ("", "", "")
    return (*words, status.get("urls", []))


def until_exposed(namespace: Any, status: str, reason: str) -> tuple[str, list[str]]:
    namespace.until(f"Exposed {reason}", lambda: exposed(namespace)[:2] == (status, reason))
    return exposed(namespace)[2:]


def test_an_httproute_from_before_the_gateway_api_is_there_to_its_end(
    operator: Any, cluster: Any, namespace: Any, no_bug: None
) -> None:
    remove_gateway_api(cluster)
    namespace.apply(deployment(gateway={"name": "web"}))
    message, urls = until_exposed(namespace, "False", "GatewayApiNotInstalled")
    assert "not installed" in message and urls == []

    install_gateway_api(cluster)
    message, _ = until_exposed(namespace, "False", "GatewayNotFound")
    assert f"no Gateway {namespace.name}/web" in message
    namespace.until("the route", lambda: namespace.all("httproute"))
    namespace.apply(gateway("web", LISTENERS))

    # The controller says no, and why: the operator hears it by its watch.
    no = ("False", "NotAllowedByListeners", "Routes of this namespace are not allowed")
    judge(namespace, "reviews", Accepted=no, ResolvedRefs=ACCEPTED["ResolvedRefs"])
    message, urls = until_exposed(namespace, "False", "RouteNotAccepted")
    assert "NotAllowedByListeners: Routes of this namespace are not allowed." in message and urls == []

    judge(namespace, "reviews", **ACCEPTED)
    message, urls = until_exposed(namespace, "True", "Exposed")
    assert urls == [f"https://{HOST}"] and urls[0] in message

    # Another hostname is another spec, of which nobody has said anything yet.
    namespace.merge("mdep", "reviews", {"spec": {"expose": {"hostnames": ["other.example.com"]}}})
    _, urls = until_exposed(namespace, "False", "WaitingForRoute")
    assert urls == [] and namespace.get("httproute", "reviews")["spec"]["hostnames"] == ["other.example.com"]
    judge(namespace, "reviews", **ACCEPTED)
    _, urls = until_exposed(namespace, "True", "Exposed")
    assert urls == ["https://other.example.com"]

    namespace.merge("mdep", "reviews", {"spec": {"expose": None}})
    namespace.until("the route to go", lambda: not namespace.all("httproute"))
    namespace.until("no word of it", lambda: exposed(namespace)[0] == "" and exposed(namespace)[3] == [])


def test_an_ingress_is_made_is_open_with_its_address_and_goes_with_the_resource(
    operator: Any, namespace: Any, no_bug: None
) -> None:
    options = {"className": "nginx", "annotations": {"example.com/size": "1m"}}
    namespace.apply(deployment(ingress=options, tls={"secretName": "certificate"}, path="/reviews"))
    message, _ = until_exposed(namespace, "False", "WaitingForRoute")
    assert "no controller of IngressClass nginx" in message.lower() or "No controller of IngressClass nginx" in message
    raw = namespace.get("ingress", "reviews")
    assert raw["metadata"]["annotations"]["example.com/size"] == "1m"
    assert raw["metadata"]["ownerReferences"][0]["kind"] == "ModelDeployment"
    address = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    namespace.merge("ingress", "reviews", address, status=True)
    _, urls = until_exposed(namespace, "True", "Exposed")
    assert urls == [f"https://{HOST}/reviews"]
    namespace.merge("ingress", "reviews", {"status": {"loadBalancer": None}}, status=True)
    _, urls = until_exposed(namespace, "False", "WaitingForRoute")
    assert urls == []
    namespace.kubectl("delete", "mdep", "reviews")
    namespace.until("the Ingress to go", lambda: not namespace.all("ingress"))


def test_somebody_elses_ingress_of_the_name_stays_as_it_is(operator: Any, namespace: Any, no_bug: None) -> None:
    backend = {"service": {"name": "theirs", "port": {"number": 80}}}
    theirs = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "reviews"},
        "spec": {"defaultBackend": backend},
    }
    namespace.apply(theirs)
    before = namespace.get("ingress", "reviews")
    namespace.apply(deployment(ingress={}))
    message, _ = until_exposed(namespace, "False", "ConfigError")
    assert "Ingress reviews is not Luthier's" in message
    namespace.kubectl("delete", "mdep", "reviews")
    namespace.until("its end", lambda: not namespace.all("mdep"))
    assert namespace.get("ingress", "reviews") == before
