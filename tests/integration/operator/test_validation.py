"""What kubectl itself says about a spec that cannot be: with the operator down, and before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from luthier_dev.kubectl import KubectlFailed
from support.operator.least import FINETUNEJOB, MODELDEPLOYMENT

pytestmark = pytest.mark.integration
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
            FINETUNEJOB,
            "spec.dataset",
            {
                "train": {"uri": "s3://data/a.csv"},
                "test": {"uri": "s3://data/b.csv"},
                "split": {"testFraction": "0.1"},
            },
            "give either test",
            id="two sources of the last test",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.model.revision",
            "main",
            "revision applies to hf:// models only",
            id="revision of a folder",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.model",
            {"uri": "hf://org/bert", "endpoint": "https://minio.example.com"},
            "apply to s3:// models only",
            id="endpoint of a hub",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.resources",
            {"limits": {"nvidia.com/gpu": "2"}},
            "request GPUs by gpusPerNode",
            id="GPU in resources",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.hyperparameters.batchSize",
            "large",
            "batchSize must be a number from 1 to 65536, or auto",
            id="batch size of another word",
        ),
        pytest.param(FINETUNEJOB, "spec.hyperparameters.batchSize", 0, "from 1 to 65536, or auto", id="no batch"),
        pytest.param(
            FINETUNEJOB, "spec.hyperparameters.batchSize", 65537, "from 1 to 65536, or auto", id="batch too large"
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.hyperparameters",
            {"batchSize": 16, "globalBatchSize": 64},
            "globalBatchSize requires batchSize auto",
            id="global batch of a number",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.hyperparameters",
            {"batchSize": "auto", "gradientAccumulationSteps": 2},
            "set globalBatchSize instead of gradientAccumulationSteps",
            id="accumulation with auto",
        ),
        pytest.param(FINETUNEJOB, "spec.hyperparameters.adamBeta1", "1", "less than 1", id="beta too high"),
        pytest.param(FINETUNEJOB, "spec.hyperparameters.padding", "longest", '"max-length"', id="unknown padding"),
        pytest.param(
            FINETUNEJOB,
            "spec.method",
            {"lora": {"r": 8}},
            "lora applies to type LoRA and QLoRA only",
            id="lora of Full",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.method",
            {"type": "LoRA", "lora": {"targetModules": ["query", "query"]}},
            "Duplicate value",
            id="a target twice",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec",
            {**FINETUNEJOB["spec"], "method": {"type": "QLoRA"}, "gpusPerNode": 0},
            "method QLoRA needs a GPU",
            id="QLoRA on a CPU",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec",
            {**FINETUNEJOB["spec"], "precision": "fp16", "gpusPerNode": 0},
            "precision fp16 needs a GPU",
            id="fp16 on a CPU",
        ),
        *(
            pytest.param(
                FINETUNEJOB,
                "spec",
                {**FINETUNEJOB["spec"], "task": "regression", **said},
                "regression has no labels",
                id=f"regression with {name}",
            )
            for name, said in {
                "labels": {"labels": ["a", "b"]},
                "labelMap": {"dataset": {**FINETUNEJOB["spec"]["dataset"], "labelMap": {"0": "a"}}},
                "classWeights": {"hyperparameters": {"classWeights": "balanced"}},
                "labelSmoothing": {"hyperparameters": {"labelSmoothing": "0.1"}},
            }.items()
        ),
        pytest.param(
            FINETUNEJOB,
            "spec",
            {
                **FINETUNEJOB["spec"],
                "task": "token-classification",
                "dataset": {"train": {"uri": "s3://data/a.csv", "textPairColumn": "b"}},
            },
            "token-classification has no second text",
            id="pairs of words",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.dataset.train",
            {"uri": "s3://data/a.csv", "labelSeparator": ";"},
            "labelSeparator applies to multi-label and token-classification only",
            id="separator of one label",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.dataset",
            {"train": {"uri": "s3://data/a.csv", "textPairColumn": "b"}, "eval": {"uri": "s3://data/b.csv"}},
            "give textPairColumn for all files of the dataset or for none",
            id="pairs to learn and none to evaluate",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.dataset.train",
            {"uri": "s3://data/a.csv", "format": {"separator": "::"}},
            "must be one character",
            id="a separator of two characters",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.dataset.train",
            {"uri": "s3://data/a.csv", "labelColumns": ["toxic", "rude"]},
            "labelColumns applies to multi-label only",
            id="columns of labels for one label",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.dataset.train",
            {"uri": "s3://data/a.csv", "labelColumns": ["toxic", "rude"], "labelColumn": "toxic"},
            "give either labelColumn or labelColumns, not both",
            id="a column of labels and several",
        ),
        pytest.param(
            FINETUNEJOB,
            "spec.dataset.train",
            {"uri": "s3://data/a.csv", "textColumns": ["title", "body"], "textColumn": "title"},
            "give either textColumn or textColumns, not both",
            id="a column of texts and several",
        ),
        pytest.param(FINETUNEJOB, "spec.dataset.labelMap", {}, "at least 1", id="empty label map"),
        pytest.param(FINETUNEJOB, "spec.dataset.labelMap", {"0": ""}, "at least 1 chars", id="label without a name"),
        pytest.param(
            FINETUNEJOB, "spec.dataset.preprocessing.maxLength", 3, "greater than or equal to 4", id="no length"
        ),
        pytest.param(
            FINETUNEJOB, "spec.dataset.preprocessing.maxLength", 8193, "less than or equal to 8192", id="long texts"
        ),
        pytest.param(FINETUNEJOB, "spec.checkpoint.keep", 0, "greater than or equal to 1", id="no checkpoint kept"),
        pytest.param(FINETUNEJOB, "spec.checkpoint.resume", "Always", 'supported values: "Auto", "Never"', id="resume"),
        pytest.param(
            FINETUNEJOB, "spec.tracking", {"mlflow": {}}, "spec.tracking.mlflow.uri: Required", id="MLflow without URI"
        ),
        pytest.param(FINETUNEJOB, "spec.tracking.mlflow.uri", "mlflow:5000", "spec.tracking.mlflow.uri", id="no URL"),
        pytest.param(FINETUNEJOB, "spec.evaluation.maxInt8Loss", "2", "at most 1", id="int8 loss too high"),
        pytest.param(
            FINETUNEJOB, "spec.output.uri", "file:///tmp/x", "output.uri must be an s3:// URI", id="output in the pod"
        ),
        pytest.param(FINETUNEJOB, "metadata.name", "a" * 53, "at most 52 characters", id="long name"),
        *(
            pytest.param(FINETUNEJOB, path, value, sentence, id=f"{path.rpartition('.')[2]} {number}")
            for number, (path, value, sentence) in enumerate(
                [
                    ("spec.dataset.split", {"fraction": "0.6", "testFraction": "0.4"}, "must add up to less than 1"),
                    (
                        "spec.dataset.train.uri",
                        "s3://data/reviews.doc",
                        "must name a .csv, .tsv, .jsonl or .parquet file",
                    ),
                    ("spec.dataset.train.uri", "s3://data/*/reviews.csv", "in the last part of the path only"),
                    (
                        "spec.dataset.train.uri",
                        "pvc://data/../reviews.csv",
                        "the path must not contain '//'",
                    ),
                    ("spec.dataset.train.uri", "pvc://Data/reviews.csv", "spec.dataset.train.uri"),
                    ("spec.dataset.train.uri", "pvc://reviews.csv", "spec.dataset.train.uri"),
                    (
                        "spec.dataset",
                        {"train": {"uri": "pvc://data/reviews.csv"}, "secretRef": {"name": "s3"}},
                        "pvc:// needs no storage access",
                    ),
                    (
                        "spec.model",
                        {"uri": "pvc://models/bert", "endpoint": "https://minio.example.com"},
                        "pvc:// needs no storage access",
                    ),
                    ("spec.dataset.train.uri", "https://example.com/a.csv", "give the sha256 of a file from https://"),
                    ("spec.dataset.train.uri", "http://example.com/a.csv", "http:// is not read, because anybody"),
                    ("spec.dataset.train.uri", "https://u:p@example.com/a.csv", "https://host/path (without a user"),
                    ("spec.dataset.train.uri", "https://example.com/data/", "must name a .csv, .tsv, .jsonl or"),
                    ("spec.dataset.train.uri", "hf://owner/name", "hf://datasets/owner/name"),
                    ("spec.dataset.train.sha256", "A" * 64, "must be 64 digits 0-9 and a-f, as sha256sum prints"),
                    ("spec.dataset.train.split", "train", "revision, config and split apply to hf://datasets only"),
                    (
                        "spec.dataset.train",
                        {"uri": "s3://data/shards/", "sha256": "a" * 64},
                        "sha256 is of one file",
                    ),
                    (
                        "spec.dataset.train",
                        {"uri": "hf://datasets/owner/name/train.csv", "split": "train"},
                        "config and split choose among the files",
                    ),
                    (
                        "spec.dataset",
                        {"train": {"uri": "hf://datasets/owner/name"}, "endpoint": "https://minio.example.com"},
                        "endpoint, region and forcePathStyle apply to s3:// data only",
                    ),
                    (
                        "spec.dataset",
                        {
                            "train": {"uri": "https://example.com/a.csv", "sha256": "a" * 64},
                            "secretRef": {"name": "s3"},
                        },
                        "https:// is read without credentials",
                    ),
                    ("spec.model.uri", "s3://models/a//b", "the path must not contain '//'"),
                    ("spec.model.uri", "hf://a/b/c", "write a Hugging Face Hub model as hf://owner/name"),
                    ("spec.output.uri", "s3://models/../x", "the path must not contain '//'"),
                    (
                        "spec.trainingArguments",
                        {"--optim": "sgd"},
                        "use the field names of transformers.TrainingArguments",
                    ),
                    (
                        "spec.resources",
                        {"requests": {"memory": "2Gi"}, "limits": {"memory": "1024Mi"}},
                        "a request must not exceed its limit",
                    ),
                    (
                        "spec.resources.limits",
                        {"gpu": "1"},
                        "a resource must be cpu, memory, ephemeral-storage or one of",
                    ),
                    ("spec.prepareResources.limits", {"example.com/nic": "0.5"}, "must be a whole number"),
                    ("spec.tolerations", [{"value": "gpu"}], "give the key of a taint"),
                    ("spec.tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "Exists takes no value"),
                    ("spec.tolerations", [{"key": "a", "tolerationSeconds": 5}], "applies to effect NoExecute only"),
                    ("spec.nodeSelector", {"a b": "c"}, "write the key of a label as kubectl get node shows it"),
                    ("spec.nodeSelector", {"zone": "not a value"}, "spec.nodeSelector.zone"),
                    ("spec.queueName", "Team_A", "spec.queueName"),
                    ("spec.queueName", "a" * 64, "may not be more than 63"),
                    ("spec.image", "trainer: 1", "spec.image"),
                    ("spec.numNodes", 0, "greater than or equal to 1"),
                    ("spec.numNodes", 65, "less than or equal to 64"),
                    ("spec.gpusPerNode", 17, "less than or equal to 16"),
                    ("spec.progressDeadlineSeconds", 0, "greater than or equal to 1"),
                    ("spec.activeDeadlineSeconds", 0, "greater than or equal to 1"),
                    ("spec.ttlSecondsAfterFinished", -1, "greater than or equal to 0"),
                    ("spec.backoffLimit", 101, "less than or equal to 100"),
                    ("spec.versionHistoryLimit", 0, "greater than or equal to 1"),
                    ("spec.deletionPolicy", "Orphan", 'supported values: "Retain", "Delete"'),
                    ("spec.concurrencyPolicy", "Allow", 'supported values: "Replace", "Forbid"'),
                    ("spec.serviceAccountName", "other/trainer", "spec.serviceAccountName"),
                    ("spec.output.secretRef", {"name": "s3", "namespace": "other"}, "unknown field"),
                    ("spec.output.caBundle", {"name": "ca", "key": "../ca.crt"}, "spec.output.caBundle.key"),
                ]
            )
        ),
        pytest.param(
            MODELDEPLOYMENT, "metadata.name", "my.model", "begin with a letter, so that its", id="dotted name"
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.runtime",
            {"engine": "onnxruntime", "gpusPerReplica": 1},
            "would hold a GPU without using it",
            id="GPU for the CPU",
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.model",
            {"fineTuneJobRef": {"name": "reviews"}, "uri": "s3://models/a", "digest": DIGEST},
            "give exactly one of fineTuneJobRef and uri",
            id="two model sources",
        ),
        pytest.param(MODELDEPLOYMENT, "spec.model", {}, "give exactly one of fineTuneJobRef and uri", id="no model"),
        pytest.param(
            MODELDEPLOYMENT, "spec.model", {"uri": "s3://models/a"}, "give uri and digest together", id="no digest"
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
            "spec.expose",
            {"hostnames": ["a.example.com"]},
            "give exactly one of gateway and ingress",
            id="no way in",
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.expose",
            {"gateway": {"name": "web"}, "hostnames": ["a.example.com"], "tls": {"secretName": "c"}},
            "the certificate of a Gateway is that of its listener",
            id="a certificate for a gateway",
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.autoscaling",
            {"minReplicas": 4, "maxReplicas": 2},
            "minReplicas must not exceed maxReplicas",
            id="min above max",
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.adapters",
            [{"name": "films", "uri": "s3://models/films/versions/v", "digest": DIGEST}],
            "adapters are computed by engine torch alone: set runtime.engine: torch",
            id="adapters on onnxruntime",
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec",
            {
                **MODELDEPLOYMENT["spec"],
                "runtime": {"engine": "torch"},
                "adapters": [{"name": "films", "uri": "s3://models/films/versions/v", "digest": DIGEST}] * 2,
            },
            "Duplicate value",
            id="two adapters of one name",
        ),
        pytest.param(
            MODELDEPLOYMENT,
            "spec.replicas",
            0,
            "set suspend: true for none, or autoscaling.minReplicas: 0",
            id="no replicas",
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
