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
from support.serving.ray_applications import front, revision

pytestmark = pytest.mark.unit

AUTOSCALING = {"minReplicas": 1, "maxReplicas": 3, "targetOngoingRequests": 8}


@pytest.mark.parametrize("scale", [{"replicas": 2}, {"autoscaling": AUTOSCALING}, {}], ids=str)
def test_the_server_takes_what_the_operator_writes(scale: dict[str, Any]) -> None:
    spec = ModelDeploymentSpec.model_validate({"model": {"fineTuneJobRef": {"name": "reviews"}}, **scale})
    grant = Grant("output", StorageAccess(endpoint="http://s3.example.com:9000"))
    served = rayservice.revision(
        spec, version="v1", uri="s3://m/m/versions/v1", digest="sha256:" + "0" * 64, grant=grant, retry=""
    )
    meta = Meta("ModelDeployment", "ns", "reviews", "uid-1", 1)
    document = json.loads(rayservice.serve_config(meta, spec, [served], {served.name: 100}))
    deployed = {}
    for application in document["applications"]:
        module, _, builder = application["import_path"].partition(":")
        built = getattr(importlib.import_module(module), builder)(application["args"])
        [deployment] = application["deployments"]
        assert deployment.pop("name") == built._bound_deployment.name
        deployed[application["route_prefix"]] = (module, deployment)
    # The paths are API: an image of another release must know them too.
    assert deployed["/"][0] == "luthier_serving.front"
    assert deployed[None][0] == "luthier_serving.revision"
    # Ray applies these options over those of the builder.
    options = inspect.signature(revision.serve.deployment).parameters
    assert set(deployed[None][1]) <= set(options)
    known = {field.alias or name for name, field in front.FrontConfig.model_fields.items()}
    assert set(deployed["/"][1]["user_config"]) <= known
    assert front.FrontConfig.model_validate(deployed["/"][1]["user_config"]).routes[0].revision == served.name
