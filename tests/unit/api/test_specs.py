"""What a spec means, and what of it is refused, where there is no API server that does so."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.modeldeployment import Autoscaling, ModelDeploymentSpec, ServedModel
from luthier_api.storage import StorageAccess, claim_of
from luthier_api.training import DataFile, Dataset, Gate, Hyperparameters, Method, Model, Split, TrainingSpec

pytestmark = pytest.mark.unit

TRAIN = {"uri": "s3://data/a.csv"}
MINIMAL: dict[str, Any] = {
    "model": {"uri": "s3://models/base"},
    "dataset": {"train": TRAIN},
    "output": {"name": "m", "uri": "s3://models/"},
}
DIGEST = f"sha256:{'a' * 64}"
ADAPTER = {"name": "films", "uri": "s3://models/films/versions/v", "digest": DIGEST}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, 16),
        ({"batchSize": 8, "gradientAccumulationSteps": 4}, 32),
        ({"batchSize": "auto"}, 32),
        ({"batchSize": "auto", "globalBatchSize": 48}, 48),
    ],
)
def test_an_optimizer_step_sees_the_global_batch(said: dict[str, Any], expected: int) -> None:
    assert Hyperparameters.model_validate(said).examples_per_step() == expected


@pytest.mark.parametrize(
    ("operator", "passing", "missing"),
    [("GTE", [0.9, 0.91], [0.89]), ("GT", [0.91], [0.9, 0.89]), ("LTE", [0.9, 0.89], [0.91]), ("LT", [0.89], [0.9])],
)
def test_a_gate_compares_as_it_says_and_nothing_passes_that_is_no_number(
    operator: str, passing: list[float], missing: list[float]
) -> None:
    gate = Gate.model_validate({"metric": "eval_f1", "operator": operator, "threshold": "0.90"})
    assert all(gate.passes(value) for value in passing)
    assert not any(gate.passes(value) for value in [*missing, float("nan")])
    assert Gate(metric="eval_f1", threshold=Decimal("0.9")).operator == "GTE"


@pytest.mark.parametrize(
    ("model", "said", "sentence"),
    [
        (Hyperparameters, {"warmupSteps": 0, "warmupRatio": "0"}, "either warmupSteps or warmupRatio"),
        (Hyperparameters, {"globalBatchSize": 32}, "globalBatchSize requires batchSize auto"),
        (Hyperparameters, {"batchSize": "auto", "gradientAccumulationSteps": 2}, "set globalBatchSize instead"),
        (Hyperparameters, {"learningRate": "fast"}, "'fast' is not a decimal number such as"),
        (Hyperparameters, {"learningRate": "Infinity"}, "is not a finite number"),
        (Hyperparameters, {"learningRate": "0"}, r"greater than Decimal\('0'\)"),
        (Method, {"type": "Full", "lora": {}}, "lora applies to type LoRA and QLoRA only"),
        (Dataset, {"train": TRAIN, "eval": TRAIN, "split": {}}, "either eval .* or split"),
        (Dataset, {"train": TRAIN, "test": TRAIN, "split": {"testFraction": "0.1"}}, "either test .* or split"),
        (
            Dataset,
            {"train": {**TRAIN, "textPairColumn": "b"}, "eval": TRAIN},
            "for all files of the dataset or for none",
        ),
        (TrainingSpec, {**MINIMAL, "labels": ["a", "b", "a"]}, "labels contains a label twice"),
        (TrainingSpec, {**MINIMAL, "task": "regression", "labels": ["a", "b"]}, "regression has no labels"),
        (
            TrainingSpec,
            {**MINIMAL, "task": "regression", "hyperparameters": {"labelSmoothing": "0.1"}},
            "regression has no labels",
        ),
        (
            TrainingSpec,
            {**MINIMAL, "dataset": {"train": {**TRAIN, "labelSeparator": ";"}}},
            "labelSeparator applies to multi-label and token-classification only",
        ),
        (FineTuneJobSpec, {**MINIMAL, "gpusPerNode": 0, "method": {"type": "QLoRA"}}, "QLoRA needs a GPU"),
        (FineTuneJobSpec, {**MINIMAL, "gpusPerNode": 0, "precision": "fp16"}, "fp16 needs a GPU"),
        (ServedModel, {}, "exactly one of fineTuneJobRef and uri"),
        (ServedModel, {"uri": "s3://models/a"}, "give uri and digest together"),
        (
            ServedModel,
            {"uri": "s3://models/a", "digest": DIGEST, "fineTuneJobRef": {"name": "a"}},
            "exactly one of fineTuneJobRef and uri",
        ),
        (Autoscaling, {"minReplicas": 4, "maxReplicas": 3}, "minReplicas must not exceed maxReplicas"),
        (
            ModelDeploymentSpec,
            {"model": {"fineTuneJobRef": {"name": "a"}}, "replicas": 1, "autoscaling": {}},
            "either replicas .* or autoscaling",
        ),
        (
            ModelDeploymentSpec,
            {"model": {"fineTuneJobRef": {"name": "a"}}, "replicas": 0},
            "replicas must be at least 1",
        ),
        (
            ModelDeploymentSpec,
            {"model": {"fineTuneJobRef": {"name": "a"}}, "adapters": [ADAPTER]},
            "adapters are computed by engine torch alone",
        ),
        (
            ModelDeploymentSpec,
            {
                "model": {"fineTuneJobRef": {"name": "a"}},
                "runtime": {"engine": "torch"},
                "adapters": [ADAPTER, ADAPTER],
            },
            "two adapters have the same name",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(model: Any, said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        model.model_validate(said)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Autoscaling, {"minReplicas": 3, "maxReplicas": 3}),
        (Autoscaling, {"minReplicas": 0, "maxReplicas": 1}),
        (
            ModelDeploymentSpec,
            {
                "model": {"fineTuneJobRef": {"name": "a"}},
                "runtime": {"gpusPerReplica": 1},
                "adapters": [ADAPTER],
            },
        ),
        (Dataset, {"train": TRAIN, "test": TRAIN, "split": {"testFraction": "0"}}),
        (FineTuneJobSpec, {**MINIMAL, "gpusPerNode": 0}),
        (FineTuneJobSpec, {**MINIMAL, "method": {"type": "QLoRA", "lora": {}}, "precision": "fp16"}),
        (TrainingSpec, {**MINIMAL, "task": "regression"}),
    ],
)
def test_what_can_be_meant_is_not_refused(model: Any, said: dict[str, Any]) -> None:
    model.model_validate(said)


@pytest.mark.parametrize("written", ["0.1", 0.1, "1e-1"])
def test_a_number_is_exactly_the_one_that_was_written(written: Any) -> None:
    assert Hyperparameters.model_validate({"learningRate": written}).learning_rate == Decimal("0.1")


def test_examples_are_held_out_only_where_there_is_no_eval_file() -> None:
    assert Dataset.model_validate({"train": TRAIN, "eval": TRAIN}).effective_split() is None
    assert Dataset.model_validate({"train": TRAIN}).effective_split() == Split()
    said = Split.model_validate({"fraction": "0.3"})
    assert Dataset.model_validate({"train": TRAIN, "split": said}).effective_split() == said


def test_a_resource_of_a_newer_release_can_be_read() -> None:
    spec = FineTuneJobSpec.model_validate({**MINIMAL, "fromTheFuture": {"a": 1}})
    assert spec.output.name == "m" and "fromTheFuture" not in spec.to_wire()


def test_access_that_says_anything_is_access_of_its_own() -> None:
    assert StorageAccess().is_unset()
    assert not StorageAccess(force_path_style=False).is_unset()
    assert not StorageAccess(region="eu-1").is_unset()


def test_a_claim_is_named_by_its_uri() -> None:
    assert [claim_of(uri) for uri in ("pvc://data/a/b.csv", "pvc://data/", "s3://data/a")] == ["data", "data", None]


@pytest.mark.parametrize(
    ("uri", "proposal"),
    [
        ("bert-base-uncased", "hf://google-bert/bert-base-uncased"),
        ("gpt2", "hf://openai-community/gpt2"),
        ("microsoft/deberta-v3-base", "hf://microsoft/deberta-v3-base"),
        ("https://huggingface.co/BAAI/bge-small-en", "hf://BAAI/bge-small-en"),
        ("/data/my model", "file:///data/my%20model"),
        ("file:/data/model", "file:///data/model"),
    ],
)
def test_what_names_no_storage_is_refused_with_what_was_meant(uri: str, proposal: str) -> None:
    with pytest.raises(ValidationError, match=f"'{uri}' is not understood; write {proposal} "):
        Model.model_validate({"uri": uri})
    Model.model_validate({"uri": proposal})


@pytest.mark.parametrize(
    "uri", ["gs://bucket/model", "s3://UPPER/x", "s3://models", "hf://", "my model", "s3://models/x "]
)
def test_what_nobody_can_guess_is_refused_with_what_is_accepted(uri: str) -> None:
    with pytest.raises(
        ValidationError, match="must be s3://bucket/folder, hf://owner/name, pvc://claim/folder or file://"
    ):
        Model.model_validate({"uri": uri})


@pytest.mark.parametrize(
    ("uri", "proposal"),
    [
        ("imdb", "hf://datasets/stanfordnlp/imdb"),
        ("stanfordnlp/imdb", "hf://datasets/stanfordnlp/imdb"),
        ("hf://stanfordnlp/imdb", "hf://datasets/stanfordnlp/imdb"),
        ("hf://datasets/glue", "hf://datasets/nyu-mll/glue"),
        ("https://huggingface.co/datasets/nyu-mll/glue", "hf://datasets/nyu-mll/glue"),
        ("https://huggingface.co/datasets/nyu-mll/glue/viewer/cola/train", "hf://datasets/nyu-mll/glue"),
        ("/data/my reviews.csv", "file:///data/my%20reviews.csv"),
    ],
)
def test_data_that_is_named_by_its_name_alone_is_refused_with_what_was_meant(uri: str, proposal: str) -> None:
    with pytest.raises(ValidationError, match=f"'{uri}' is not understood; write {proposal} "):
        DataFile.model_validate({"uri": uri})
    DataFile.model_validate({"uri": proposal})


WEB = "https://example.com/reviews.csv"
HUB = "hf://datasets/owner/name"


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ({"uri": WEB}, "give the sha256 of a file from https://"),
        ({"uri": WEB, "sha256": "A" * 64}, "must be 64 digits 0-9 and a-f, as sha256sum prints them"),
        ({"uri": "http://example.com/reviews.csv"}, "http:// is not read, because anybody on the way could change"),
        ({"uri": "https://user:secret@example.com/a.csv", "sha256": "a" * 64}, "without a user"),
        ({"uri": "s3://data/shards/", "sha256": "a" * 64}, "sha256 is of one file"),
        ({"uri": "s3://data/a-*.csv", "sha256": "a" * 64}, "sha256 is of one file"),
        ({"uri": HUB, "sha256": "a" * 64}, "sha256 is of one file"),
        ({"uri": "s3://data/a.csv", "split": "train"}, "revision, config and split apply to hf://datasets only"),
        ({"uri": f"{HUB}/train.csv", "config": "en"}, "config and split choose among the files"),
    ],
)
def test_a_source_of_data_that_says_too_little_or_too_much_is_refused(file: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        DataFile.model_validate(file)


@pytest.mark.parametrize(
    "file",
    [
        {"uri": f"{WEB}?download=1", "sha256": "a" * 64},
        {"uri": "s3://data/a.csv", "sha256": "a" * 64},
        {"uri": f"{HUB}/data/train.csv", "sha256": "a" * 64, "revision": "v1"},
        {"uri": f"{HUB}/", "config": "en", "split": "train", "revision": "refs/convert/parquet"},
    ],
)
def test_a_source_of_data_may_be_pinned(file: dict[str, str]) -> None:
    assert DataFile.model_validate(file).to_wire().items() >= file.items()


@pytest.mark.parametrize("name", ["a b.csv", "größe,neu.csv", "my%20data.csv", "データ.csv", "(1) copy & paste.csv"])
@pytest.mark.parametrize("scheme", ["s3://data/", "pvc://data/", "file:///data/"])
def test_names_of_files_are_whatever_people_call_them(scheme: str, name: str) -> None:
    assert DataFile.model_validate({"uri": scheme + name}).uri == scheme + name
