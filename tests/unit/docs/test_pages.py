"""What the pages show: commands that bash reads and that say who runs them, and manifests that are accepted."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from luthier_api.batchprediction import BatchPredictionSpec
from luthier_api.finetunejob import FineTuneJobSpec
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_dev.charts import CHART
from luthier_dev.paths import REPOSITORY
from support.pages import COMMANDS, Block, all_blocks, pages

pytestmark = pytest.mark.unit

SPECS: dict[str, type[BaseModel]] = {
    "FineTuneJob": FineTuneJobSpec,
    "ModelDeployment": ModelDeploymentSpec,
    "BatchPrediction": BatchPredictionSpec,
}
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
OF_OTHERS = (
    {"applications", "http_options", "grpc_options"},  # Ray Serve
    {"healthCheckExprs"},  # Flux's Kustomization
    {"resources", "namePrefix", "namespace"},  # kustomize
)
LANGUAGES = {*COMMANDS, "yaml", "json", "text"}
MARK = re.compile(r"run by (tests/[\w/]+\.py::test_\w+)|not run: \S.*")
TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def in_language(*languages: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in all_blocks() if block.language in languages]


def test_every_block_is_fenced_and_names_its_language() -> None:
    assert {str(block): block.language for block in all_blocks() if block.language not in LANGUAGES} == {}
    indented = re.compile(r"\n\n {4}(?![-*\d ])\S[^\n]*\n(?=\n|\Z| {4})")
    bare = [page.name for page in pages() if indented.search(re.sub(r"```.*?```", "", page.read_text(), flags=re.S))]
    assert bare == [], "a block by indentation has no language and no mark"


def test_every_block_of_commands_says_which_test_runs_it_or_why_none_does() -> None:
    unmarked = [str(block) for block in all_blocks() if block.language in COMMANDS and not MARK.fullmatch(block.mark)]
    assert unmarked == [], "support/pages.py says how a mark is written"


def test_every_test_that_a_mark_names_exists_and_takes_its_block_from_the_page() -> None:
    wrong = []
    for block in all_blocks():
        for path, name in TEST.findall(block.mark):
            source = (REPOSITORY / path).read_text() if (REPOSITORY / path).exists() else ""
            reads = "marked_with(" in source or block.mark.startswith("not run")
            if f"def {name}(" not in source or not reads:
                wrong.append(f"{block}: {path}::{name}")
    assert wrong == []


@pytest.mark.parametrize("block", in_language("sh"))
def test_bash_reads_every_block_of_commands(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", in_language("python"))
def test_python_reads_every_block_of_python(block: Block) -> None:
    compile(block.text, str(block), "exec")


def refusals(model: type[BaseModel], spec: Any) -> list[str]:
    """Return what the contract refuses, and not what a part that is shown alone lacks."""
    try:
        model.model_validate(spec, extra="forbid")
    except ValidationError as error:
        found = error.errors(include_url=False)
        return [f"{each['loc']}: {each['msg']}" for each in found if each["type"] != "missing"]
    return []


def without_ellipses(node: Any) -> Any:
    """Return a document without the values of which only the beginning is shown."""
    if isinstance(node, dict):
        return {name: without_ellipses(each) for name, each in node.items() if not str(each).endswith("...")}
    return [without_ellipses(each) for each in node] if isinstance(node, list) else node


def home_of(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with a document that names no kind: a part of a spec, or values of the chart."""
    part = document.get("spec", document)
    models = [model for model in SPECS.values() if set(part) <= {_name(model, name) for name in model.model_fields}]
    models += [_dataset()] if set(part) <= {_name(_dataset(), name) for name in _dataset().model_fields} else []
    if any(not refusals(model, part) for model in models):
        return []
    if set(part) <= set(SCHEMA["properties"]):
        return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(_over(VALUES, part))]
    return [refusal for model in models for refusal in refusals(model, part)] or [f"nothing has all of {list(part)}"]


def _over(values: Any, given: Any) -> Any:
    """Return values of the chart with those that are given, as helm merges them."""
    if not (isinstance(values, dict) and isinstance(given, dict)):
        return given
    return {**values, **{name: _over(values.get(name), each) for name, each in given.items()}}


def _name(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].alias or name


def _dataset() -> type[BaseModel]:
    annotation = FineTuneJobSpec.model_fields["dataset"].annotation
    assert isinstance(annotation, type)
    return annotation


@pytest.mark.parametrize("block", in_language("yaml"))
def test_every_manifest_and_every_part_of_one_has_fields_that_exist(block: Block) -> None:
    for document in map(without_ellipses, yaml.safe_load_all(block.text)):
        kind = document.get("kind")
        if kind in SPECS:
            assert document["apiVersion"] == "luthier.dev/v1alpha1"
            assert refusals(SPECS[kind], document["spec"]) == []
        elif kind is None:
            assert any(set(document) <= known for known in OF_OTHERS) or home_of(document) == []
        else:
            assert document["apiVersion"] and document["metadata"]["name"]


def test_a_field_that_does_not_exist_is_found() -> None:
    assert home_of({"runtime": {"resources": {}, "nodes": 3}})
    assert home_of({"trainer": {"imagee": "x"}})
    assert home_of({"nothing": 1})
    assert refusals(FineTuneJobSpec, {"model": {"uri": "s3://a/b", "oops": 1}})
