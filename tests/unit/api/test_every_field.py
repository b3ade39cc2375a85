"""Every field that a user may write is in the hashes that it belongs in, also one that somebody adds tomorrow.

The fields are read off the schema itself. A field of the training changes the run key unless it is named here as one
that decides no result; a field that is forgotten fails the test by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.keys import data_key, run_hash, run_key, spec_hash
from luthier_api.schema import crds
from luthier_api.training import TrainingSpec

pytestmark = pytest.mark.unit

Node = dict[str, Any]

MINIMAL: Node = {
    "model": {"uri": "s3://models/base/bert"},
    "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
    "output": {"name": "sentiment", "uri": "s3://models/"},
}
# What must be said for a field to be allowed.
CONTEXT: dict[str, Node] = {
    "method.lora": {"method": {"type": "LoRA"}},
    "hyperparameters.globalBatchSize": {"hyperparameters": {"batchSize": "auto"}},
    "dataset.eval": {"dataset": {"eval": {"uri": "s3://data/eval.csv"}}},
    "dataset.test": {"dataset": {"test": {"uri": "s3://data/test.csv"}}},
    **{f"dataset.{file}.labelSeparator": {"task": "multi-label"} for file in ("train", "eval", "test")},
    "dataset.train.labelColumns": {"task": "multi-label"},
    **{
        f"dataset.{file}.labelColumns": {"task": "multi-label", "dataset": {"train": {"labelColumns": ["a", "b"]}}}
        for file in ("eval", "test")
    },
    **{
        f"dataset.{file}.textPairColumn": {"dataset": {"train": {"textPairColumn": "second"}}}
        for file in ("eval", "test")
    },
    **{
        f"dataset.{file}.{field}": {"dataset": {file: {"uri": "hf://datasets/owner/name"}}}
        for file in ("train", "eval", "test")
        for field in ("revision", "config", "split")
    },
    "tracking.mlflow": {"tracking": {"mlflow": {"uri": "http://mlflow"}}},
    **{f"{part}.caBundle": {part: {"caBundle": {"name": "ca"}}} for part in ("model", "dataset", "output")},
}
# Two values of what the schema's type alone does not tell.
VALUES: dict[str, tuple[Any, Any]] = {
    "task": ("text-classification", "multi-label"),
    "labels": (["a", "b"], ["b", "a"]),
    "export": (["safetensors"], ["safetensors", "onnx"]),
    "trainingArguments": ({"optim": "sgd"}, {"optim": "adafactor"}),
    "evaluation.gates": ([{"metric": "eval_f1_macro", "threshold": "0.5"}], []),
    "dataset.labelMap": ({"0": "negative"}, {"0": "positive"}),
    "method.lora.targetModules": (["query"], ["value"]),
    "hyperparameters.batchSize": (16, "auto"),
    "dataset.quality.maxImbalanceRatio": ("2", "3"),
    "tracking.mlflow.uri": ("http://a", "http://b"),
    "output.uri": ("s3://models/", "s3://others/"),
}
ENDINGS: dict[str, tuple[Any, Any]] = {
    ".uri": ("s3://place/one.csv", "s3://place/other.csv"),
    ".sha256": ("a" * 64, "b" * 64),
    ".labelColumns": (["a", "b"], ["b", "a"]),
    ".textColumns": (["a", "b"], ["b", "a"]),
    ".separator": (";", "|"),
    ".escape": ("\\", "^"),
    ".endpoint": ("https://one.example.com", "https://other.example.com"),
}

ACCESS = ("secretRef.", "endpoint", "region", "caBundle.", "forcePathStyle")
PLACES = {"model.uri", "model.revision", "output.uri", "output.name"} | {
    f"dataset.{file}.{field}"
    for file in ("train", "eval", "test")
    # The digest of the bytes that these lead to is in the keys.
    for field in ("uri", "sha256", "revision", "config", "split")
}


def is_access(path: str) -> bool:
    """How storage is reached: no part of a spec's result."""
    part, _, field = path.partition(".")
    return part in ("model", "dataset", "output") and field.startswith(ACCESS)


def is_conduct(path: str) -> bool:
    """How a run survives, and where else it is told."""
    return path.startswith(("checkpoint.", "tracking."))


def is_limit(path: str) -> bool:
    """What the data must keep for a run to begin; prepare checks it."""
    return path.startswith("dataset.quality.")


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        if child.get("properties"):
            yield from leaves(child, here)
        else:
            yield here, child


SPEC = crds()["finetunejobs.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
TRAINING = {field.alias for field in TrainingSpec.model_fields.values()}
FIELDS = {path: node for path, node in leaves(SPEC) if path.split(".")[0] in TRAINING}


def two_values(path: str, node: Node) -> tuple[Any, Any]:
    if path in VALUES:
        return VALUES[path]
    for ending, values in ENDINGS.items():
        if path.endswith(ending):
            return values
    if "enum" in node:
        return node["enum"][0], node["enum"][1]
    if any("decimal" in rule["message"] for rule in node.get("x-kubernetes-validations", [])):
        return "0.25", "0.5"
    match node["type"]:
        case "boolean":
            return False, True
        case "integer":
            return node["minimum"] + 1, node["minimum"] + 2
        case "string":
            return "one", "other"
    raise AssertionError(f"give two values of {path} in VALUES")


def spec_with(path: str, value: Any) -> FineTuneJobSpec:
    wire = MINIMAL
    for prefix, context in CONTEXT.items():
        if path.startswith(prefix):
            wire = merged(wire, context)
    said: Any = value
    for name in reversed(path.split(".")):
        said = {name: said}
    return FineTuneJobSpec.model_validate(merged(wire, said))


def merged(old: Node, new: Node) -> Node:
    """Lay one tree over another."""
    both = {key: merged(old[key], value) if isinstance(old.get(key), dict) else value for key, value in new.items()}
    return {**old, **both}


def key_of(spec: TrainingSpec) -> str:
    data = data_key(spec, dataset_digest="d", tokenizer_digest="t")
    return run_key(spec, model_digest=f"sha256:{'a' * 64}", data_key=data, image="image:1")


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_a_field_is_in_the_hashes_that_it_belongs_in(path: str) -> None:
    one, other = (spec_with(path, value) for value in two_values(path, FIELDS[path]))
    assert one != other, "the two values are one"
    assert run_hash(one, "") != run_hash(other, ""), "every field shapes the run's pods"
    assert (spec_hash(one, "") == spec_hash(other, "")) is (is_access(path) or is_conduct(path))
    decides_nothing = is_access(path) or is_conduct(path) or is_limit(path) or path in PLACES
    assert (key_of(one) == key_of(other)) is decides_nothing


def test_every_place_and_every_value_here_is_of_a_field_that_there_is() -> None:
    assert set(FIELDS) >= PLACES | set(VALUES)
    assert len(FIELDS) > 80
