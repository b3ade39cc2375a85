"""model.verify: which keys a replica is given, and what the RayService and the Job are without it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from luthier_api.batchprediction import BatchPredictionSpec
from luthier_api.documents import TRUSTED_KEYS_DIR, RevisionConfig, ServerConfig
from luthier_api.reasons import ConditionType
from luthier_operator.manifests import batch_job
from luthier_operator.manifests.rayservice import cluster_hash_of
from luthier_operator.model.views import ApplicationView, Meta
from support.operator.serving import DEFAULTS, FOLLOWING, Cluster, job, serving, version

pytestmark = pytest.mark.unit

VERIFY = {"verify": {"publicKeyRef": {"name": "release-keys"}}}
MODEL = {**FOLLOWING["model"], **VERIFY}
KEYS = f"{TRUSTED_KEYS_DIR}/public.pem"
VOLUME = {
    "name": "trusted-keys",
    "configMap": {"name": "release-keys", "items": [{"key": "public.pem", "path": "public.pem"}]},
}


def verifying(**more: Any) -> Cluster:
    return serving(version("v-a"), spec={"model": {**MODEL, **more}})


def revision_of(cluster: Cluster) -> RevisionConfig:
    (server,) = json.loads(cluster.manifest["spec"]["serveConfigV2"])["applications"]
    stable = ServerConfig.model_validate(server["deployments"][0]["user_config"]).stable
    assert stable
    return stable


def check_pod(pod: dict[str, Any]) -> None:
    assert VOLUME in pod["volumes"], "required: without its keys a pod is not to start"
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "trusted-keys"]
    assert mount == {"name": "trusted-keys", "mountPath": TRUSTED_KEYS_DIR, "readOnly": True}, "no subPath"


def test_the_keys_are_a_folder_of_the_pods_that_load_and_of_no_other() -> None:
    config = verifying().manifest["spec"]["rayClusterConfig"]
    check_pod(config["workerGroupSpecs"][0]["template"]["spec"])
    assert "release-keys" not in str(config["headGroupSpec"])


def test_a_revision_names_their_file_and_another_file_is_another_revision() -> None:
    assert revision_of(verifying()).trusted_keys == KEYS
    other = revision_of(verifying(verify={"publicKeyRef": {"name": "release-keys", "key": "team.pem"}}))
    assert other.trusted_keys == f"{TRUSTED_KEYS_DIR}/team.pem"
    assert len({revision_of(each).name for each in (verifying(), serving(version("v-a")))} | {other.name}) == 3


def test_a_new_version_is_verified_before_it_gets_a_request_and_tried_again_once_it_is_signed() -> None:
    cluster = verifying()
    cluster.job, cluster.broken = job(version("v-b"), version("v-a")), {"v-b"}
    cluster.carry_out(cluster.plan())
    entries = json.loads(cluster.manifest["spec"]["serveConfigV2"])["applications"]
    (canary,) = [each["args"] for each in entries if each["route_prefix"] is None]
    assert (canary["version"], canary["trustedKeys"]) == ("v-b", KEYS)

    cluster.ray_works()
    unsigned = "s3://models/sentiment/versions/v-b is not signed: it has no model.sig; sign it."
    refused = ApplicationView("DEPLOY_FAILED", f"ray.x: LoadError: IntegrityError: {unsigned}\n  at z")
    cluster.applications[canary["name"]] = refused
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())
    assert cluster.weights()["v-a"] == 100
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled and stalled[0] == "True" and unsigned in stalled[2]

    cluster.broken = set()
    cluster.meta = replace(cluster.meta, retry="1")
    cluster.settle()
    assert cluster.weights() == {"v-b": 100}


def test_the_workers_of_a_batch_prediction_verify_too() -> None:
    wire = {
        "model": MODEL,
        "input": {"uri": "s3://data/texts.csv"},
        "output": {"uri": "s3://data/predictions/"},
    }
    spec = BatchPredictionSpec.model_validate(wire)
    assert spec.mounts, "what keeps its pod from starting is looked for"
    owner = Meta("BatchPrediction", "team", "reviews", "uid-1", 1)
    where = {"model_uri": "s3://models/sentiment/versions/v-a", "digest": f"sha256:{'a' * 64}", "model": None}
    bulk = batch_job.document(owner, spec, run="r", begun="", **where)
    assert bulk.model.trusted_keys == KEYS
    made = batch_job.job(owner, spec, run_hash="0" * 64, bulk=bulk, model=None, defaults=DEFAULTS)
    check_pod(made["spec"]["template"]["spec"])


def test_without_it_nothing_names_a_key() -> None:
    cluster = serving(version("v-a"))
    assert "trusted" not in json.dumps(cluster.manifest)
    assert cluster_hash_of(cluster.manifest) != cluster_hash_of(verifying().manifest), "a pod's volumes never change"
