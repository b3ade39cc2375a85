"""The examples say what the models accept: every field by its name, every metric and argument one that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier_api.base import ApiModel
from luthier_api.batchprediction import BatchPrediction
from luthier_api.finetunejob import FineTuneJob, FineTuneJobSpec
from luthier_api.modeldeployment import ModelDeployment
from luthier_api.schema import crds
from luthier_api.training import MethodType, Task
from luthier_trainer.spec.metric_names import check_metric_names
from luthier_trainer.spec.training_arguments import parse_training_arguments
from support.examples import EXAMPLES, MANIFESTS

pytestmark = pytest.mark.unit

KINDS: dict[str, type[ApiModel]] = {
    "FineTuneJob": FineTuneJob,
    "ModelDeployment": ModelDeployment,
    "BatchPrediction": BatchPrediction,
}


def finetunejobs() -> list[FineTuneJobSpec]:
    documents = [yaml.safe_load(path.read_text()) for path in MANIFESTS]
    return [FineTuneJobSpec.model_validate(each["spec"]) for each in documents if each["kind"] == "FineTuneJob"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_is_a_resource_without_unknown_fields(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    model = KINDS[document["kind"]]
    model.model_validate({"spec": document["spec"]}, extra="forbid")
    assert document["apiVersion"] == "luthier.dev/v1alpha1" and document["metadata"]["name"]


@pytest.mark.parametrize("spec", finetunejobs(), ids=lambda spec: spec.output.name)
def test_an_example_names_metrics_and_arguments_that_there_are(spec: FineTuneJobSpec) -> None:
    check_metric_names(spec)
    parse_training_arguments(spec.training_arguments)


def test_there_is_an_example_of_every_task_of_pairs_and_of_lora() -> None:
    specs = finetunejobs()
    assert {spec.task for spec in specs} == set(Task)
    assert any(spec.dataset.train.text_pair_column for spec in specs)
    assert any(spec.method.type is MethodType.LORA for spec in specs)


def test_the_names_of_the_examples_keep_their_versions_apart() -> None:
    names = [spec.output.name for spec in finetunejobs()]
    assert len(set(names)) == len(names)


def fields(node: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        inner = child.get("items", child)
        if inner.get("properties"):
            yield from fields(inner, here)
        else:
            yield here


def test_the_full_example_shows_every_field_or_names_it_beside_what_excludes_it() -> None:
    text = (EXAMPLES / "full.yaml").read_text()
    schema = crds()["finetunejobs.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    said = set(re.findall(r"\b([a-zA-Z]\w*):", text))
    missing = [path for path in fields(schema["properties"]["spec"]) if path.rsplit(".", 1)[-1] not in said]
    assert missing == ["tolerations.tolerationSeconds"], "an eviction's delay is no matter of training"
