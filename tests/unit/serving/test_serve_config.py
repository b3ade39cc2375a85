"""What the operator writes into serveConfigV2 is what the server's applications take: neither imports the other."""

import importlib
import inspect
import json
from typing import Any

import pytest

from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.storage import StorageAccess
from luthier_operator.manifests import rayservice
from luthier_operator.manifests.access import Grant
from luthier_operator.model.views import Meta
from support.serving.ray_applications import revision, schema, server

pytestmark = pytest.mark.unit

AUTOSCALING = {"minReplicas": 1, "maxReplicas": 3, "targetOngoingRequests": 8}


ADAPTED = {
    "runtime": {"engine": "torch"},
    "adapters": [{"name": "films", "uri": "s3://models/films/versions/v", "digest": "sha256:" + "2" * 64}],
}


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
@pytest.mark.parametrize(
    "scale",
    [{"replicas": 2}, {"autoscaling": AUTOSCALING}, {}, {"autoscaling": {**AUTOSCALING, "minReplicas": 0}}, ADAPTED],
    ids=str,
)
def test_the_server_takes_what_the_operator_writes(scale: dict[str, Any]) -> None:
    spec = ModelDeploymentSpec.model_validate({"model": {"fineTuneJobRef": {"name": "reviews"}}, **scale})
    grant = Grant("output", StorageAccess(endpoint="http://s3.example.com:9000"))
    served = rayservice.revision(
        spec, version="v1", uri="s3://m/m/versions/v1", digest="sha256:" + "0" * 64, grant=grant, retry=""
    )
    canary = rayservice.revision(
        spec, version="v2", uri="s3://m/m/versions/v2", digest="sha256:" + "1" * 64, grant=grant, retry=""
    )
    layout = rayservice.Layout(served, canary, 25, f"{canary.name}/1", previous=None)
    meta = Meta("ModelDeployment", "ns", "reviews", "uid-1", 1)
    text = rayservice.serve_config(meta, spec, layout)
    assert rayservice.read_layout(text) == layout
    schema.ServeDeploySchema.model_validate(json.loads(text))
    deployed = {}
    for application in json.loads(text)["applications"]:
        module, _, builder = application["import_path"].partition(":")
        built = getattr(importlib.import_module(module), builder)(application["args"])
        [deployment] = application["deployments"]
        assert deployment.pop("name") == built._bound_deployment.name
        deployed[application["route_prefix"]] = (module, deployment)
    # The paths are API: an image of another release must know them too.
    assert deployed["/"][0] == "luthier_serving.server"
    assert deployed[None][0] == "luthier_serving.revision"
    # Ray applies these options over those of the builder.
    options = inspect.signature(revision.serve.deployment).parameters
    assert set(deployed[None][1]) <= set(options) and set(deployed["/"][1]) <= set(options)
    config = server.ServerConfig.from_json(json.dumps(deployed["/"][1]["user_config"]))
    assert config.stable and config.stable.name == served.name
    assert {route.revision: (route.weight, route.own_application) for route in config.routes} == {
        served.name: (75, False),
        canary.name: (25, True),
    }
    assert [each.name for each in config.adapters or ()] == [each.name for each in spec.adapters]


def test_a_configuration_of_a_release_before_the_server_held_a_revision_is_no_layout() -> None:
    assert rayservice.read_layout(json.dumps({"applications": [{"name": "front", "deployments": []}]})) is None
    assert rayservice.read_layout("") is None
