"""Limits of requests and gRPC: what these fields change of a server, and that unset they change nothing."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from luthier_api.documents import ServerConfig
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_operator.manifests import grpc
from luthier_operator.manifests.rayservice import cluster_hash_of
from support.operator.serving import FOLLOWING, serving, version

pytestmark = pytest.mark.unit


def with_runtime(**runtime: Any) -> dict[str, Any]:
    return FOLLOWING | {"runtime": runtime}


def configured(manifest: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(manifest["spec"]["serveConfigV2"])
    return config


def user_config(manifest: dict[str, Any]) -> ServerConfig:
    [server] = configured(manifest)["applications"]
    return ServerConfig.model_validate(server["deployments"][0]["user_config"])


def test_limits_that_are_not_set_are_those_of_the_server() -> None:
    config, own = user_config(serving(version("v-a")).manifest), ServerConfig(model_name="own")
    assert (config.max_body_bytes, config.max_texts) == (own.max_body_bytes, own.max_texts)
    assert (config.max_text_characters, config.request_timeout_s) == (own.max_text_characters, own.request_timeout_s)


def test_limits_reach_the_server_in_place_with_no_other_revision_and_no_second_cluster() -> None:
    limits = {"bodyBytes": 2048, "texts": 3, "characters": 5, "seconds": 7}
    before, after = serving(version("v-a")), serving(version("v-a"), spec=with_runtime(limits=limits))
    config = user_config(after.manifest)
    assert (config.max_body_bytes, config.max_texts) == (2048, 3)
    assert (config.max_text_characters, config.request_timeout_s) == (5, 7)
    assert after.layout == before.layout
    assert cluster_hash_of(after.manifest) == cluster_hash_of(before.manifest)


@pytest.mark.parametrize(
    "limits", [{"bodyBytes": 0}, {"bodyBytes": 2**27}, {"texts": 0}, {"characters": 0}, {"seconds": 0}]
)
def test_limits_have_bounds(limits: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ModelDeploymentSpec.model_validate(with_runtime(limits=limits))


def test_grpc_is_a_port_of_the_workers_a_service_and_an_option_of_ray_serve() -> None:
    cluster = serving(version("v-a"), spec=with_runtime(grpc=True))
    [workers] = cluster.manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    [container] = workers["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": "grpc", "containerPort": 9000}]
    assert configured(cluster.manifest)["grpc_options"]["port"] == 9000
    service = grpc.service(cluster.meta)
    assert service["metadata"]["name"] == "sentiment-grpc"
    assert service["spec"]["selector"].items() <= workers["template"]["metadata"]["labels"].items()


def test_the_service_is_made_once_and_before_the_server() -> None:
    cluster = serving(version("v-a"))
    assert not [each for each in cluster.plan().applies if each.manifest["kind"] == "Service"]
    cluster.spec = ModelDeploymentSpec.model_validate(with_runtime(grpc=True))
    applies = cluster.plan().applies
    assert [(each.manifest["kind"], each.once) for each in applies][-2:] == [("Service", True), ("RayService", False)]


def test_only_a_server_that_speaks_grpc_has_anything_of_it() -> None:
    without, with_it = serving(version("v-a")), serving(version("v-a"), spec=with_runtime(grpc=True))
    assert "grpc" not in json.dumps(without.manifest)
    assert cluster_hash_of(without.manifest) != cluster_hash_of(with_it.manifest), "Ray Serve cannot open it later"
