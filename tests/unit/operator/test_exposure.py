"""The way in from outside: what is made, what the status says of it, and what goes when the field goes."""

from dataclasses import replace
from typing import Any

import pytest

from luthier_api.conditions import find_condition
from luthier_api.exposure import Expose
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests.exposure import hash_of, route
from luthier_operator.model import names
from luthier_operator.model.routes import GatewayView, Listener, RouteView, gateway_view, httproute_view, ingress_view
from luthier_operator.model.views import Meta
from luthier_operator.plan.modeldeployment.exposure import Outside
from support.operator.serving import FOLLOWING, Cluster, version
from support.operator.serving import serving as settled

pytestmark = pytest.mark.unit

META = Meta("ModelDeployment", "team", "reviews", "uid-1", 1)
HOSTS = ["reviews.example.com", "r.example.com"]
GATEWAY: dict[str, Any] = {"gateway": {"name": "web", "namespace": "infra"}, "hostnames": HOSTS}
INGRESS: dict[str, Any] = {"ingress": {"className": "nginx"}, "hostnames": HOSTS}
HTTPS = GatewayView((Listener("http", "HTTP", 80), Listener("https", "HTTPS", 443)))
ACCEPTED = {
    "parents": [{"conditions": [{"type": "Accepted", "status": "True"}, {"type": "ResolvedRefs", "status": "True"}]}]
}
ADDRESS = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}


def made(**expose: Any) -> dict[str, Any]:
    return route(META, Expose.model_validate(expose))


def test_an_httproute_leads_from_the_gateway_to_the_service() -> None:
    manifest = made(**{**GATEWAY, "gateway": {**GATEWAY["gateway"], "sectionName": "https"}, "path": "/reviews"})
    assert (manifest["apiVersion"], manifest["kind"]) == ("gateway.networking.k8s.io/v1", "HTTPRoute")
    assert manifest["metadata"]["name"] == "reviews" and manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert manifest["metadata"]["labels"][names.MODELDEPLOYMENT] == "reviews"
    assert manifest["spec"] == {
        "parentRefs": [{"name": "web", "namespace": "infra", "sectionName": "https"}],
        "hostnames": HOSTS,
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/reviews"}}],
                "backendRefs": [{"name": "reviews-serve-svc", "port": 8000}],
            }
        ],
    }
    assert made(gateway={"name": "web"}, hostnames=HOSTS)["spec"]["parentRefs"] == [{"name": "web"}]


def test_an_ingress_leads_from_its_class_to_the_service() -> None:
    options = {"className": "nginx", "annotations": {"example.com/size": "1m"}}
    manifest = made(ingress=options, hostnames=HOSTS, tls={"secretName": "certificate"})
    assert (manifest["apiVersion"], manifest["kind"]) == ("networking.k8s.io/v1", "Ingress")
    assert manifest["metadata"]["annotations"]["example.com/size"] == "1m"
    backend = {"service": {"name": "reviews-serve-svc", "port": {"number": 8000}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    assert manifest["spec"] == {
        "ingressClassName": "nginx",
        "rules": [{"host": host, "http": {"paths": paths}} for host in HOSTS],
        "tls": [{"hosts": HOSTS, "secretName": "certificate"}],
    }
    plain = made(ingress={}, hostnames=HOSTS)["spec"]
    assert "tls" not in plain and "ingressClassName" not in plain
    assert made(ingress={}, hostnames=HOSTS, tls={})["spec"]["tls"] == [{"hosts": HOSTS}]


def test_an_annotation_of_the_user_makes_another_ingress_and_cannot_take_the_place_of_the_hash() -> None:
    plain = made(**INGRESS)
    noted = made(**{**INGRESS, "ingress": {"className": "nginx", "annotations": {"a": "b"}}})
    forged = made(**{**INGRESS, "ingress": {"className": "nginx", "annotations": {names.SPEC_HASH: "x"}}})
    assert len({hash_of(plain), hash_of(noted), hash_of(forged), "x"}) == 4


# What controllers say


def judged(generation: int, *parents: dict[str, Any]) -> RouteView:
    metadata = {"name": "reviews", "uid": "r", "generation": generation}
    return httproute_view({"metadata": metadata, "status": {"parents": list(parents)}})


def parent(accepted: str = "True", resolved: str | None = "True", seen: int = 2, **words: str) -> dict[str, Any]:
    rows = [{"type": "Accepted", "status": accepted, "observedGeneration": seen, **words}]
    if resolved:
        rows.append({"type": "ResolvedRefs", "status": resolved, "observedGeneration": seen, **words})
    return {"controllerName": "example.com/c", "conditions": rows}


NOT_ALLOWED = "NotAllowedByListeners: Routes of team are not allowed"
NO_BACKEND = {"reason": "BackendNotFound", "message": ""}
WHY = {"reason": "NotAllowedByListeners", "message": "Routes of team are not allowed."}


@pytest.mark.parametrize(
    ("parents", "accepted", "answered", "condition", "reason"),
    [
        ([], False, False, "", ""),
        ([parent()], True, True, "", ""),
        ([parent(seen=1)], False, False, "", ""),
        ([parent(seen=1), parent("False", **WHY)], False, True, "Accepted", NOT_ALLOWED),
        ([parent("False", **WHY), parent()], True, True, "", ""),
        ([parent(resolved="False", **NO_BACKEND)], False, True, "ResolvedRefs", "BackendNotFound"),
        ([parent(resolved=None)], False, True, "ResolvedRefs", ""),
        ([parent("Unknown", reason="Pending", message="")], False, True, "Accepted", "Pending"),
        ([{"controllerName": "c", "conditions": None}], False, False, "", ""),
    ],
)  # fmt: skip
def test_an_httproute_is_accepted_when_a_controller_says_so_of_its_present_spec(
    parents: list[Any], accepted: bool, answered: bool, condition: str, reason: str
) -> None:
    view = judged(2, *parents)
    assert (view.accepted, view.answered, view.condition, view.reason) == (accepted, answered, condition, reason)


@pytest.mark.parametrize(
    ("status", "accepted"),
    [
        ({}, False),
        (None, False),
        ({"loadBalancer": {"ingress": []}}, False),
        ({"loadBalancer": {"ingress": [{}]}}, False),
        (ADDRESS, True),
        ({"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}}, True),
    ],
)
def test_an_ingress_is_accepted_when_it_has_an_address(status: Any, accepted: bool) -> None:
    assert ingress_view({"metadata": {"name": "r", "uid": "u"}, "status": status}).accepted is accepted


def test_what_others_write_is_bounded_and_never_fails() -> None:
    view = judged(2, parent("False", reason="\x1b[2J", message="m" * 5000))
    assert "\x1b" not in view.reason and len(view.reason) < 400
    listeners = [{"name": 1, "protocol": None, "port": "x"}, {}]
    assert gateway_view({"spec": {"listeners": listeners}}).listeners[0] == Listener("1", "None", 0)
    assert gateway_view({}).listeners == ()


# What the operator makes of it


def exposed(expose: dict[str, Any], gateway: GatewayView | str | None = HTTPS) -> Cluster:
    cluster = Cluster({**FOLLOWING, "expose": expose})
    cluster.outside = Outside(gateway=gateway)
    cluster.settle()
    return cluster


def condition(cluster: Cluster) -> tuple[str, str, str]:
    found = cluster.condition(ConditionType.EXPOSED)
    assert found
    return found


def test_the_urls_are_listed_once_the_route_is_accepted_and_then_nothing_is_written() -> None:
    cluster = exposed(GATEWAY)
    assert list(cluster.routes) == ["HTTPRoute"] and cluster.status.urls == []
    said = "No controller of Gateway infra/web has judged the HTTPRoute yet; does one run?"
    assert condition(cluster) == ("False", Reason.WAITING_FOR_ROUTE, said)
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and ready[:2] == ("False", Reason.WAITING_FOR_ROUTE)
    assert (
        ready[2] == f"Version v-a answers requests. From outside no request reaches it yet: {said[0].lower()}{said[1:]}"
    )
    assert cluster.condition(ConditionType.RECONCILING) and not cluster.condition(ConditionType.STALLED)
    cluster.judge("HTTPRoute", ACCEPTED)
    cluster.carry_out(cluster.plan())
    assert cluster.status.urls == ["https://reviews.example.com", "https://r.example.com"]
    said = "The route is accepted: https://reviews.example.com, https://r.example.com."
    assert condition(cluster) == ("True", Reason.EXPOSED, said)
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")
    assert cluster.status.url == "http://sentiment-serve-svc.default.svc:8000", "from inside, as before"
    assert cluster.plan().empty and cluster.plan().requeue_after_s is None


def test_while_no_version_answers_that_is_what_ready_says() -> None:
    cluster = Cluster({**FOLLOWING, "expose": GATEWAY})
    cluster.job = None
    cluster.carry_out(cluster.plan())
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and ready[1] == Reason.WAITING_FOR_MODEL and "outside" not in ready[2]
    assert condition(cluster)[0] == "False"


@pytest.mark.parametrize(
    ("outside", "status", "reason", "words"),
    [
        (Outside(installed=False), None, Reason.GATEWAY_API_NOT_INSTALLED, "The Gateway API is not installed"),
        (Outside(gateway=None), {}, Reason.GATEWAY_NOT_FOUND, "There is no Gateway infra/web; create it"),
        (Outside(gateway="403: no"), {}, Reason.WAITING_FOR_ROUTE, "has judged the HTTPRoute yet"),
        (
            Outside(gateway=HTTPS), {"parents": [parent("False", **WHY)]}, Reason.ROUTE_NOT_ACCEPTED,
            "Gateway infra/web does not accept the route: NotAllowedByListeners: Routes of team are not allowed.",
        ),
        (
            Outside(gateway=HTTPS), {"parents": [parent(resolved="False", reason="BackendNotFound", message="x")]},
            Reason.WAITING_FOR_ROUTE, "does not find what is behind the route: BackendNotFound: x.",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_and_looked_for_again(
    outside: Outside, status: dict[str, Any] | None, reason: Reason, words: str
) -> None:
    cluster = Cluster({**FOLLOWING, "expose": GATEWAY})
    cluster.outside = outside
    cluster.settle()
    assert bool(cluster.routes) is outside.installed, "nothing is applied that the cluster does not know"
    if status is not None:
        cluster.judge("HTTPRoute", status)
    plan = cluster.plan()
    cluster.carry_out(plan)
    found = condition(cluster)
    assert found[:2] == ("False", reason) and words in found[2]
    assert plan.requeue_after_s == 15.0 and cluster.status.urls == []
    assert cluster.condition(ConditionType.AVAILABLE) == ("True", Reason.SERVING, "Version v-a answers requests.")


def test_a_listener_that_the_gateway_has_not_is_named_with_those_that_it_has() -> None:
    cluster = exposed({**GATEWAY, "gateway": {"name": "web", "sectionName": "tls"}})
    assert condition(cluster)[2] == "Gateway default/web has no listener tls; it has: http, https."


def test_an_ingress_waits_for_its_address() -> None:
    cluster = exposed({**INGRESS, "tls": {"secretName": "certificate"}, "path": "/v1/reviews"})
    said = "No controller of IngressClass nginx has given the Ingress an address; is there one, and does it run?"
    assert condition(cluster) == ("False", Reason.WAITING_FOR_ROUTE, said)
    cluster.judge("Ingress", ADDRESS)
    cluster.carry_out(cluster.plan())
    assert cluster.status.urls == ["https://reviews.example.com/v1/reviews", "https://r.example.com/v1/reviews"]


@pytest.mark.parametrize(
    ("expose", "gateway", "url"),
    [
        (GATEWAY, HTTPS, "https://reviews.example.com"),
        (GATEWAY, GatewayView((Listener("http", "HTTP", 80),)), "http://reviews.example.com"),
        (GATEWAY, GatewayView((Listener("http", "HTTP", 8080),)), "http://reviews.example.com:8080"),
        (GATEWAY, GatewayView((Listener("x", "TCP", 1), Listener("s", "HTTPS", 8443))), "https://reviews.example.com:8443"),
        (GATEWAY, "403: no", "http://reviews.example.com"),
        ({**GATEWAY, "tls": {}}, "403: no", "https://reviews.example.com"),
        ({**GATEWAY, "tls": {}}, GatewayView((Listener("http", "HTTP", 8080),)), "https://reviews.example.com"),
        ({**GATEWAY, "gateway": {"name": "w", "sectionName": "http"}}, HTTPS, "http://reviews.example.com"),
        ({**GATEWAY, "path": "/a"}, HTTPS, "https://reviews.example.com/a"),
    ],
)  # fmt: skip
def test_the_url_is_that_of_the_listener_and_https_where_the_spec_says_so(
    expose: dict[str, Any], gateway: GatewayView | str, url: str
) -> None:
    cluster = exposed(expose, gateway)
    cluster.judge("HTTPRoute", ACCEPTED)
    cluster.carry_out(cluster.plan())
    assert cluster.status.urls[0] == url


def test_without_the_field_nothing_is_made_and_nothing_is_said() -> None:
    cluster = settled(version("v-a"))
    assert not cluster.routes and cluster.condition(ConditionType.EXPOSED) is None
    assert "expose" not in str(cluster.manifest)


def test_when_the_field_goes_the_route_goes_and_with_it_the_urls() -> None:
    cluster = exposed(GATEWAY)
    cluster.judge("HTTPRoute", ACCEPTED)
    cluster.carry_out(cluster.plan())
    cluster.spec = ModelDeploymentSpec.model_validate(FOLLOWING)
    plan = cluster.plan()
    assert [(each.kind, each.name, each.uid) for each in plan.deletes] == [("HTTPRoute", "sentiment", "uid-HTTPRoute")]
    cluster.carry_out(plan)
    assert not cluster.routes and cluster.status.urls == [] and cluster.condition(ConditionType.EXPOSED) is None
    assert cluster.plan().empty


def test_another_kind_of_way_in_takes_the_place_of_the_first() -> None:
    cluster = exposed(GATEWAY)
    cluster.spec = ModelDeploymentSpec.model_validate({**FOLLOWING, "expose": INGRESS})
    cluster.carry_out(cluster.plan())
    assert list(cluster.routes) == ["Ingress"]


def test_an_edited_way_in_is_applied_again_and_its_urls_go_until_it_is_accepted_again() -> None:
    cluster = exposed(GATEWAY)
    cluster.judge("HTTPRoute", ACCEPTED)
    cluster.carry_out(cluster.plan())
    cluster.spec = ModelDeploymentSpec.model_validate(
        {**FOLLOWING, "expose": {**GATEWAY, "hostnames": ["x.example.com"]}}
    )
    cluster.carry_out(cluster.plan())
    assert cluster.routes["HTTPRoute"]["spec"]["hostnames"] == ["x.example.com"] and cluster.status.urls == []


@pytest.mark.parametrize("deleting", [False, True])
def test_a_route_that_somebody_else_made_is_never_touched(deleting: bool) -> None:
    cluster = Cluster({**FOLLOWING, "expose": GATEWAY})
    cluster.outside = Outside((RouteView("HTTPRoute", "sentiment", "u", "other", deleting=deleting),), gateway=HTTPS)
    cluster.settle()
    assert not cluster.routes
    said = "The HTTPRoute sentiment is not Luthier's; delete it, or rename this resource."
    assert condition(cluster) == ("False", Reason.CONFIG_ERROR, said)
    cluster.spec = ModelDeploymentSpec.model_validate(FOLLOWING)
    assert not cluster.plan().deletes


def test_one_s_own_route_that_is_being_deleted_is_neither_applied_nor_deleted_again() -> None:
    cluster = exposed(GATEWAY)
    (only,) = cluster.outside.routes
    cluster.outside = replace(cluster.outside, routes=(replace(only, deleting=True, spec_hash="old"),))
    assert not [each for each in cluster.plan().applies if each.manifest["kind"] == "HTTPRoute"]
    cluster.spec = ModelDeploymentSpec.model_validate(FOLLOWING)
    assert not cluster.plan().deletes


def test_a_path_reaches_the_server_in_place_without_another_ray_cluster() -> None:
    plain, prefixed = settled(version("v-a")), exposed({**GATEWAY, "path": "/reviews"})
    assert '"pathPrefix": "/reviews"' in prefixed.manifest["spec"]["serveConfigV2"]
    assert prefixed.manifest["spec"]["rayClusterConfig"] == plain.manifest["spec"]["rayClusterConfig"]


def test_what_the_cluster_refuses_keeps_the_condition_that_there_was() -> None:
    from luthier_operator.model.views import Refusal

    cluster = exposed(GATEWAY)
    before = find_condition(cluster.status.conditions, ConditionType.EXPOSED)
    cluster.refused = Refusal("no")
    cluster.carry_out(cluster.plan())
    assert find_condition(cluster.status.conditions, ConditionType.EXPOSED) == before
