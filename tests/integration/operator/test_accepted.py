"""What the API server accepts of a spec, how it stores it, and what kubectl explain says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_dev.kubectl import KubectlFailed
from luthier_dev.waiting import wait_until
from support.examples import EXAMPLES, MANIFESTS
from support.operator.least import BATCHPREDICTION, FINETUNEJOB, MODELDEPLOYMENT

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("resource", [FINETUNEJOB, MODELDEPLOYMENT, BATCHPREDICTION], ids=lambda each: each["kind"])
def test_the_least_that_a_user_may_say_is_accepted(namespace: Any, resource: dict[str, Any]) -> None:
    namespace.apply(resource)
    assert "reviews" in namespace.kubectl("get", "luthier")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"hyperparameters": {"batchSize": "auto"}}, id="auto"),
        pytest.param({"hyperparameters": {"batchSize": "auto", "globalBatchSize": 64}}, id="auto of a global batch"),
        pytest.param({"hyperparameters": {"batchSize": 8, "gradientAccumulationSteps": 4}}, id="accumulation"),
        pytest.param({"method": {"type": "QLoRA"}}, id="QLoRA on the GPU that is the default"),
        pytest.param({"method": {"type": "LoRA", "lora": {"r": 8}}, "gpusPerNode": 0}, id="LoRA on a CPU"),
        pytest.param({"task": "regression", "hyperparameters": {"labelSmoothing": "0.0"}}, id="regression"),
        pytest.param(
            {
                "task": "multi-label",
                "dataset": {
                    "train": {"uri": "s3://data/shards/", "labelSeparator": "|"},
                    "test": {"uri": "s3://data/test-*.csv.gz", "labelSeparator": "|"},
                    "labelMap": {"0": "negative", "1": "positive"},
                },
            },
            id="shards, a label map and several labels",
        ),
        pytest.param(
            {
                "dataset": {
                    "train": {"uri": "hf://datasets/owner/name", "revision": "v1", "config": "en", "split": "train"},
                    "eval": {"uri": "https://example.com/a.csv.gz?download=1", "sha256": "a" * 64},
                    "test": {"uri": "hf://datasets/owner/name/data/test-*.parquet"},
                    "secretRef": {"name": "hub"},
                    "caBundle": {"name": "corporate"},
                },
                "model": {"uri": "hf://owner/name", "caBundle": {"name": "corporate"}},
            },
            id="data from a hub and from the web",
        ),
    ],
)
def test_what_is_allowed_is_accepted_and_read_by_the_operator(namespace: Any, said: dict[str, Any]) -> None:
    wanted = {**FINETUNEJOB, "spec": {**FINETUNEJOB["spec"], **said}}
    namespace.apply(wanted)
    stored = namespace.get("ftj", "reviews")["spec"]
    assert FineTuneJobSpec.model_validate(stored) == FineTuneJobSpec.model_validate(wanted["spec"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_is_accepted(namespace: Any, path: Path) -> None:
    assert "created" in namespace.kubectl("apply", "--dry-run=server", "--filename", str(path))


@pytest.mark.parametrize(
    ("field", "default", "says"),
    [
        ("numNodes", "Default: 1.", "train one model together"),
        ("gpusPerNode", "Default: 1.", "0 trains on the CPU"),
        ("queueName", "Unset: they start immediately.", "Kueue LocalQueue, in the same namespace"),
        ("progressDeadlineSeconds", "Default: 3600.", "without completing a step"),
        ("versionHistoryLimit", "Unset: all are kept.", "Number of versions of this resource"),
        ("deletionPolicy", "Default: Retain.", "when the resource is deleted"),
        ("ttlSecondsAfterFinished", "Default: 86400.", "finished Jobs and their logs are kept"),
        ("backoffLimit", "Default: 3.", "Number of failures to retry"),
        ("suspend", "Default: false.", "free its GPU"),
        ("export", "Default: safetensors, onnx.", "Formats in the artifact"),
        ("hyperparameters.learningRate", "Default: 0.00002.", "Peak learning rate"),
        ("dataset.train.textColumn", "Default: text.", "holds the text"),
        ("evaluation.gates.operator", "Default: GTE.", "at least"),
    ],
)
def test_explain_shows_what_a_field_means_and_its_default(cluster: Any, field: str, default: str, says: str) -> None:

    def explained() -> str | None:
        try:
            cluster.kubectl("explain", "finetunejobs.spec")
        except KubectlFailed as error:
            return str(error)
        return None

    wait_until(explained, "the API server to publish the schema", timeout_s=60, interval_s=0.2)
    told = " ".join(cluster.kubectl("explain", f"finetunejobs.spec.{field}").split())
    assert says in told and default in told


@pytest.mark.parametrize("resource", [FINETUNEJOB, MODELDEPLOYMENT, BATCHPREDICTION], ids=lambda each: each["kind"])
def test_what_no_operator_has_seen_yet_does_not_look_done(namespace: Any, resource: dict[str, Any]) -> None:
    """kstatus takes a resource without a status for one with which all is well; one that is behind it waits for."""
    namespace.apply(resource)
    stored = namespace.get(resource["kind"].lower(), "reviews")
    assert stored["status"]["observedGeneration"] == 0 < stored["metadata"]["generation"]


AS_YAML_MAKES_THEM = {
    "resources": {"requests": {"cpu": 2, "memory": 4000000000}, "limits": {"cpu": "2500m", "memory": 5000000000}},
    "imagePullSecrets": [{"name": "registry"}, "other"],
    "hyperparameters": {"weightDecay": 0, "maxGradNorm": 1, "learningRate": "2e-5"},
}


def test_whole_numbers_need_no_quotes_and_pull_secrets_may_be_written_as_in_a_pod(namespace: Any) -> None:
    namespace.apply({**FINETUNEJOB, "spec": {**FINETUNEJOB["spec"], **AS_YAML_MAKES_THEM}})
    kept = FineTuneJobSpec.model_validate(namespace.get("ftj", "reviews")["spec"])
    assert kept.resources.requests == {"cpu": "2", "memory": "4000000000"}
    assert kept.image_pull_secrets == ["registry", "other"]
    assert str(kept.hyperparameters.max_grad_norm) == "1" and kept.hyperparameters.weight_decay == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resources": {"requests": {"cpu": 3}, "limits": {"cpu": 2}}}, "a request must not exceed its limit"),
        ({"hyperparameters": {"learningRate": 2}}, "at most 1"),
        ({"imagePullSecrets": [{"nam": "x"}]}, "imagePullSecrets"),
        ({"imagePullSecrets": ["Not A Name"]}, "imagePullSecrets"),
        ({"podMetadata": {"labels": {"luthier.dev/run": "mine"}}}, "not of luthier.dev"),
    ],
)
def test_numbers_and_names_are_still_held_to_their_bounds(namespace: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(KubectlFailed, match=words):
        namespace.apply({**FINETUNEJOB, "spec": {**FINETUNEJOB["spec"], **changes}})
