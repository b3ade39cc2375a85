"""What kubectl itself says about a spec that cannot be: with the operator down, and before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from luthier_dev.kubectl import KubectlFailed

pytestmark = pytest.mark.integration

FINETUNEJOB: dict[str, Any] = {
    "apiVersion": "luthier.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "reviews"},
    "spec": {
        "model": {"uri": "s3://models/base"},
        "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
        "output": {"name": "sentiment", "uri": "s3://models/"},
    },
}
MODELDEPLOYMENT: dict[str, Any] = {
    "apiVersion": "luthier.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "reviews"},
    "spec": {"model": {"fineTuneJobRef": {"name": "reviews"}}},
}
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("resource", "path", "value", "sentence"),
    [
        pytest.param(FINETUNEJOB, "spec.modle", {}, 'unknown field "spec.modle"', id="unknown field"),
        pytest.param(
            FINETUNEJOB,
            "spec.hyperparameters.learningRate",
            "abc",
            'a decimal number in quotes, such as "2e-5"',
            id="rate abc",
        ),
        pytest.param(FINETUNEJOB, "spec.hyperparameters.learningRate", "2", "at most 1", id="rate too high"),
        pytest.param(FINETUNEJOB, "spec.hyperparameters.epochs", 0, "greater than or equal to 1", id="no epochs"),
        pytest.param(FINETUNEJOB, "spec.model.uri", "models/base", "spec.model.uri", id="not a URI"),
        pytest.param(FINETUNEJOB, "spec.output", None, "spec.output: Required value", id="no output"),
        pytest.param(FINETUNEJOB, "spec.labels", ["only"], "at least 2 items", id="one label"),
        pytest.param(FINETUNEJOB, "spec.labels", ["a", "a"], "Duplicate value", id="a label twice"),
        pytest.param(FINETUNEJOB, "spec.precision", "fp8", 'supported values: "auto", "fp32"', id="unknown precision"),
        pytest.param(
            FINETUNEJOB,
            "spec.hyperparameters",
            {"warmupSteps": 5, "warmupRatio": "0.1"},
            "give either warmupSteps or warmupRatio, not both",
            id="two warmups",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.dataset",
            {"train": {"uri": "s3://data/a.csv"}, "eval": {"uri": "s3://data/b.csv"}, "split": {"fraction": "0.1"}},
            "give either eval",
            id="two sources of evaluation",
        ),
        pytest.param(
            FINETUNEJOB, "spec.model.revision", "main", "revision is for hf:// models only", id="revision of a folder"
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.model",
            {"uri": "hf://org/bert", "endpoint": "https://minio.example.com"},
            "are for s3:// models only",
            id="endpoint of a hub",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.resources",
            {"limits": {"nvidia.com/gpu": "2"}},
            "GPUs are asked for by gpusPerNode",
            id="GPU in resources",
        ),
        pytest.param(
            FINETUNEJOB, "spec.output.uri", "file:///tmp/x", "output.uri must be s3://", id="output in the pod"
        ),
        pytest.param(FINETUNEJOB, "metadata.name", "a" * 53, "at most 52 characters", id="long name"),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.model",
            {"fineTuneJobRef": {"name": "reviews"}, "uri": "s3://models/a", "digest": DIGEST},
            "give exactly one of fineTuneJobRef and uri",
            id="two model sources",
        ),
        pytest.param(MODELDEPLOYMENT, "spec.model", {}, "give exactly one of fineTuneJobRef and uri", id="no model"),
        pytest.param(
            MODELDEPLOYMENT, "spec.model", {"uri": "s3://models/a"}, "uri and digest belong together", id="no digest"
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec",
            {**MODELDEPLOYMENT["spec"], "replicas": 2, "autoscaling": {"maxReplicas": 3}},
            "give either replicas (fixed) or autoscaling, not both",
            id="replicas and autoscaling",
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.autoscaling",
            {"minReplicas": 4, "maxReplicas": 2},
            "minReplicas must not exceed maxReplicas",
            id="min above max",
        ),
    ],
)
def test_a_bad_spec_is_refused_with_a_sentence_that_tells_the_fix(
    namespace: Any, resource: dict[str, Any], path: str, value: Any, sentence: str
) -> None:
    bad = copy.deepcopy(resource)
    *parents, last = path.split(".")
    node = bad
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is None:
        del node[last]
    else:
        node[last] = value
    with pytest.raises(KubectlFailed) as refused:
        namespace.apply(bad)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("resource", [FINETUNEJOB, MODELDEPLOYMENT], ids=["FineTuneJob", "ModelDeployment"])
def test_the_least_that_a_user_may_say_is_accepted(namespace: Any, resource: dict[str, Any]) -> None:
    namespace.apply(resource)
    assert "reviews" in namespace.kubectl("get", "luthier")


def test_explain_tells_what_a_field_means(cluster: Any) -> None:
    assert "Peak learning rate" in cluster.kubectl("explain", "ftj.spec.hyperparameters.learningRate")
