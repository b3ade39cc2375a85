"""What a server is told to observe, and that it changes nothing for those who ask for nothing."""

import json
from typing import Any

import pytest

from luthier_api.documents import ServerConfig
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.storage import StorageAccess
from luthier_operator.manifests import rayservice
from luthier_operator.manifests.access import Grant
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.views import Meta
from support.operator.serving import FOLLOWING, Cluster, serving, version

pytestmark = pytest.mark.unit

DEFAULTS = Defaults(trainer_image="trainer:1", server_image="server:1")
META = Meta("ModelDeployment", "team", "reviews", "uid-1", 1)
LOG = {"uri": "s3://logs/requests", "samplePercent": "2.5"}


def config(cluster: Cluster) -> ServerConfig:
    [server] = [each for each in applications(cluster) if each["name"] == "server"]
    return ServerConfig.model_validate(server["deployments"][0]["user_config"], extra="forbid")


def applications(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.manifest["spec"]["serveConfigV2"])["applications"]
    return found


def pod(cluster: Cluster) -> dict[str, Any]:
    spec: dict[str, Any] = cluster.manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    return spec


def observed(**parts: Any) -> Cluster:
    return serving(version("v-a"), spec={**FOLLOWING, "observe": parts})


def test_what_is_not_asked_for_is_not_in_the_manifest() -> None:
    plain = serving(version("v-a"))
    assert "observe" not in plain.manifest["spec"]["serveConfigV2"]
    for empty in ({}, {"drift": None}):
        assert observed(**empty).manifest == plain.manifest


def test_each_part_reaches_the_server_and_the_limit_stays_with_the_operator() -> None:
    cluster = observed(
        drift={"limit": "0.1", "windowSeconds": 600},
        requestLog={**LOG, "texts": True, "flushSeconds": 5},
        tracing={"endpoint": "http://otel:4318", "samplePercent": 20},
    )
    found = config(cluster).observe
    assert found and found.drift and found.request_log and found.tracing
    assert (found.namespace, found.drift.window_s) == ("default", 600)
    assert (found.request_log.uri, found.request_log.share, found.request_log.texts) == (LOG["uri"], 0.025, True)
    assert found.request_log.flush_s == 5
    assert (found.tracing.endpoint, found.tracing.share) == ("http://otel:4318", 0.2)
    assert "0.1" not in json.dumps(found.to_wire())


def test_to_observe_is_applied_in_place_and_makes_no_second_ray_cluster_and_no_new_revision() -> None:
    plain, cluster = (
        serving(version("v-a")),
        observed(requestLog=LOG, tracing={"endpoint": "http://otel:4318"}, drift={}),
    )
    assert plain.manifest["spec"]["rayClusterConfig"] == cluster.manifest["spec"]["rayClusterConfig"]
    assert plain.layout.stable == cluster.layout.stable


def test_a_log_without_access_of_its_own_uses_the_versions() -> None:
    found = config(observed(requestLog=LOG)).observe
    assert found and found.request_log
    assert (found.request_log.access.endpoint, found.request_log.access.credentials) == ("http://s3:8333", "output")


def test_a_secret_of_the_log_is_mounted_and_pods_start_without_it() -> None:
    cluster = observed(requestLog={**LOG, "secretRef": {"name": "log-keys"}, "endpoint": "http://other:9000"})
    found = config(cluster).observe
    assert found and found.request_log
    assert (found.request_log.access.endpoint, found.request_log.access.credentials) == ("http://other:9000", "log")
    [volume] = [each for each in pod(cluster)["volumes"] if each["name"] == "credentials-log"]
    sources = [each["secret"] for each in volume["projected"]["sources"]]
    assert {each["name"] for each in sources} == {"log-keys"} and all(each["optional"] for each in sources)
    mounted = {each["name"]: each["mountPath"] for each in pod(cluster)["containers"][0]["volumeMounts"]}
    assert mounted["credentials-log"] == "/etc/luthier/credentials/log"
    [own] = [each for each in pod(cluster)["volumes"] if each["name"] == "credentials-output"]
    assert not own["projected"]["sources"][0]["secret"]["optional"], "without the version's nothing is served"


def test_the_head_has_no_keys_of_the_log() -> None:
    spec = ModelDeploymentSpec.model_validate(
        {**FOLLOWING, "observe": {"requestLog": {**LOG, "secretRef": {"name": "log-keys"}}}}
    )
    made = rayservice.cluster_config(META, spec, Grant("output", StorageAccess()), DEFAULTS)
    assert "log-keys" in json.dumps(made["workerGroupSpecs"])
    assert "log-keys" not in json.dumps(made["headGroupSpec"])
