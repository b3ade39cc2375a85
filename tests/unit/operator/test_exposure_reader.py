"""What is known of a way in: what the watch has told, and what is asked only where the spec has one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_operator.gather.exposure import ExposureReader
from luthier_operator.kube import ApiNotInstalled, KubeClient, Unexpected
from luthier_operator.model import names
from luthier_operator.model.resources import ModelDeploymentResource
from luthier_operator.model.routes import GatewayView, Listener
from luthier_operator.model.views import Key, Meta
from luthier_operator.plan.modeldeployment.exposure import Outside
from luthier_operator.store.informers import Informers
from luthier_operator.store.store import Store

pytestmark = pytest.mark.unit

KEY = Key("ModelDeployment", "team", "reviews")
META = Meta("ModelDeployment", "team", "reviews", "uid-1", 1)
WEB = {"gateway": {"name": "web", "namespace": "infra"}, "hostnames": ["a.example.com"]}
GATEWAY = {"spec": {"listeners": [{"name": "https", "protocol": "HTTPS", "port": 443}]}}


class Cluster:
    """Answers gets by (kind, namespace, name), and says what was asked."""

    def __init__(self, **objects: Any) -> None:
        self.objects, self.asked = objects, []

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Any:
        self.asked.append((api_version, kind, namespace, name))
        found = self.objects.get(kind)
        if isinstance(found, Exception):
            raise found
        return found


def raw(kind: str, version: int = 5, labelled: bool = True, **status: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {
            "name": "reviews",
            "namespace": "team",
            "uid": f"uid-{kind}",
            "resourceVersion": str(version),
            "labels": {names.MODELDEPLOYMENT: "reviews"} if labelled else {},
            "ownerReferences": [{"controller": True, "uid": "uid-1"}] if labelled else [],
        },
        "status": status,
    }


class World:
    """A store with its informers, and a reader."""

    def __init__(self, expose: dict[str, Any] | None, **objects: Any) -> None:
        self.woken: list[Key] = []
        self.store, self.cluster = Store(), Cluster(**objects)
        self.informers = Informers(self.store, self.woken.append, self.woken.append)
        spec = {"model": {"fineTuneJobRef": {"name": "reviews"}}, **({"expose": expose} if expose else {})}
        self.resource = ModelDeploymentResource(META, ModelDeploymentSpec.model_validate(spec), ModelDeploymentStatus())

    async def read(self) -> Outside:
        return await ExposureReader(cast(KubeClient, self.cluster), self.store).read(self.resource)


async def test_of_a_resource_without_a_way_in_nothing_is_asked_and_what_is_left_of_one_is_known() -> None:
    world = World(None)
    assert await world.read() == Outside() and world.cluster.asked == []
    world.informers.child("Ingress", raw("Ingress"), deleted=False)
    assert [route.kind for route in (await world.read()).routes] == ["Ingress"] and world.cluster.asked == []


async def test_a_route_that_is_watched_is_not_asked_for_and_its_gateway_is() -> None:
    world = World(WEB, Gateway=GATEWAY)
    world.informers.child("HTTPRoute", raw("HTTPRoute"), deleted=False)
    found = await world.read()
    assert [route.owner_uid for route in found.routes] == ["uid-1"]
    assert found.gateway == GatewayView((Listener("https", "HTTPS", 443),))
    assert world.cluster.asked == [("gateway.networking.k8s.io/v1", "Gateway", "infra", "web")]


async def test_a_route_of_somebody_else_is_found_by_its_name() -> None:
    world = World(WEB, HTTPRoute=raw("HTTPRoute", labelled=False))
    (route,) = (await world.read()).routes
    assert (route.kind, route.owner_uid) == ("HTTPRoute", "")


async def test_a_gateway_that_is_not_there_one_that_may_not_be_read_and_an_api_that_is_not_there_are_three_things() -> (
    None
):
    assert (await World(WEB).read()).gateway is None
    found = (await World(WEB, Gateway=Unexpected("403 Forbidden: gateways")).read()).gateway
    assert found == "403 Forbidden: gateways"
    assert not (await World(WEB, HTTPRoute=ApiNotInstalled("404")).read()).installed


async def test_an_ingress_needs_no_gateway() -> None:
    world = World({"ingress": {}, "hostnames": ["a.example.com"]})
    assert (await world.read()).installed
    assert world.cluster.asked == [("networking.k8s.io/v1", "Ingress", "team", "reviews")]


@pytest.mark.parametrize(
    ("kind", "accepted"),
    [
        ("Ingress", {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}),
        ("HTTPRoute", {"parents": [{"conditions": [{"type": "Accepted", "status": "False", "reason": "No"}]}]}),
    ],
)
def test_what_a_controller_writes_wakes_the_resource_and_what_says_nothing_new_does_not(
    kind: Any, accepted: dict[str, Any]
) -> None:
    world = World(WEB)
    world.informers.child(kind, raw(kind, 5), deleted=False)
    world.informers.child(kind, raw(kind, 6), deleted=False)
    assert world.woken == [KEY]
    world.informers.child(kind, raw(kind, 7, **accepted), deleted=False)
    assert world.woken == [KEY, KEY]
    world.informers.child(kind, raw(kind, 8), deleted=True)
    assert world.woken == [KEY, KEY, KEY] and world.store.routes(KEY) == []


def test_what_was_written_is_seen_before_the_watch_tells_of_it() -> None:
    world = World(WEB)
    world.store.wrote("HTTPRoute", raw("HTTPRoute"))
    assert [route.kind for route in world.store.routes(KEY)] == ["HTTPRoute"]
