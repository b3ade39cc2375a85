"""API keys and other origins: what they make of the RayService, and what a spec without them does not."""

import json
from typing import Any

import pytest

from luthier_api.documents import API_KEYS_DIR, ApiKeysState
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests import rayservice
from luthier_operator.plan.pods.diagnosis import diagnose_event
from support.operator.serving import FOLLOWING, Cluster, serving, version

pytestmark = pytest.mark.unit

AUTH = {"auth": {"apiKeysSecretRef": {"name": "team-keys"}}}
CLUSTER_HASH = "9a955b1e97cfb6347c7bb24fa80f2ff6ade14d0e1b70fa9eb573e1511bca7678"
"""What the release before had for the same spec: with another one, KubeRay builds a second cluster for everybody."""
CORS = {"http": {"cors": {"allowOrigins": ["https://app.example.com"]}}}


def with_spec(**more: Any) -> Cluster:
    return serving(version("v-a"), spec={**FOLLOWING, **more})


def server_entry(cluster: Cluster) -> dict[str, Any]:
    entries = json.loads(cluster.manifest["spec"]["serveConfigV2"])["applications"]
    return dict(next(entry for entry in entries if entry["route_prefix"] == "/"))


def pods_of(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any]]:
    config = cluster.manifest["spec"]["rayClusterConfig"]
    return config["headGroupSpec"]["template"]["spec"], config["workerGroupSpecs"][0]["template"]["spec"]


def test_the_secret_is_a_folder_of_the_replicas_pods_and_of_no_other_and_no_variable() -> None:
    head, worker = pods_of(with_spec(**AUTH))
    assert {"name": "api-keys", "secret": {"secretName": "team-keys"}} in worker["volumes"]
    (mount,) = [each for each in worker["containers"][0]["volumeMounts"] if each["name"] == "api-keys"]
    assert mount == {"name": "api-keys", "mountPath": API_KEYS_DIR, "readOnly": True}, "no subPath: it is replaced"
    assert "team-keys" not in str(head) and "team-keys" not in str(worker["containers"][0]["env"])


def test_a_server_that_does_not_know_api_keys_cannot_start_with_them() -> None:
    """It would pass over a field of its user_config, and let everybody in; unknown args end it."""
    entry = server_entry(with_spec(**AUTH))
    assert entry["args"] == {"gpusPerReplica": 0, "apiKeys": True}
    assert "apiKeys" not in str(entry["deployments"])


def test_without_these_fields_the_rayservice_is_as_it_was() -> None:
    cluster = with_spec()
    entry, (_, worker) = server_entry(cluster), pods_of(cluster)
    assert entry["args"] == {"gpusPerReplica": 0}
    config = entry["deployments"][0]["user_config"]
    assert not {"allowedOrigins", "pathPrefix", "apiKeys"} & set(config)
    assert [each["name"] for each in worker["volumes"]] == ["cache", "credentials-output"]
    assert (
        rayservice.cluster_hash_of(cluster.manifest)
        == "9a955b1e97cfb6347c7bb24fa80f2ff6ade14d0e1b70fa9eb573e1511bca7678"
    )


def test_other_origins_reach_the_server_in_place() -> None:
    plain, listed = with_spec(), with_spec(**CORS)
    assert server_entry(listed)["deployments"][0]["user_config"]["allowedOrigins"] == ["https://app.example.com"]
    assert listed.manifest["spec"]["rayClusterConfig"] == plain.manifest["spec"]["rayClusterConfig"]


def test_keys_are_turned_on_in_a_second_ray_cluster_while_the_first_answers() -> None:
    cluster = with_spec()
    before = rayservice.cluster_hash_of(cluster.manifest)
    cluster.spec = ModelDeploymentSpec.model_validate({**FOLLOWING, **AUTH})
    cluster.carry_out(cluster.plan())
    assert rayservice.cluster_hash_of(cluster.manifest) != before
    assert cluster.layout.canary is None


NOBODY = "The Secret with the API keys holds no usable key, so nobody is admitted."


def test_replicas_that_admit_nobody_make_it_not_ready_until_they_do() -> None:
    cluster = with_spec(**AUTH)
    cluster.api_keys = ApiKeysState(count=2)
    cluster.carry_out(cluster.plan())
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")
    cluster.api_keys = ApiKeysState(count=0, message=NOBODY)
    cluster.carry_out(cluster.plan())
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and ready[:2] == ("False", Reason.NO_API_KEYS)
    assert ready[2] == (
        "Version v-a answers requests. But the Secret with the API keys holds no usable key, so nobody is admitted. "
        "Put a key into the Secret of auth.apiKeysSecretRef."
    )
    assert cluster.condition(ConditionType.RECONCILING) and not cluster.condition(ConditionType.STALLED)
    cluster.api_keys = ApiKeysState(count=1)
    cluster.carry_out(cluster.plan())
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")


def test_a_secret_that_does_not_exist_is_named_with_what_to_do() -> None:
    said = diagnose_event('MountVolume.SetUp failed for volume "api-keys" : secret "team-keys" not found')
    assert said.reason is Reason.MISSING_SECRET and 'secret "team-keys" not found' in said.message
    assert "Create that Secret" in said.message
