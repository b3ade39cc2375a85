"""The CRDs promise what the models say, within what the API server accepts."""

from collections.abc import Iterator
from typing import Any

import pytest

from luthier_api.schema import crds, default_told

pytestmark = pytest.mark.unit

SCHEMAS = {name: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for name, crd in crds().items()}


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(node.get(inner), dict):
            yield from walk(node[inner], f"{path}[]")


FIELDS = [
    (name, path, node)
    for name, schema in SCHEMAS.items()
    for path, node in walk(schema)
    if path and not path.startswith(".metadata")
]


def test_every_field_says_what_it_means() -> None:
    silent = [(name, path) for name, path, node in FIELDS if not path.endswith("[]") and not node.get("description")]
    assert not silent


def test_every_user_written_value_is_bounded_so_that_cel_costs_are_known() -> None:
    def bounded(node: dict[str, Any]) -> bool:
        match node.get("type"):
            case "string":
                return "maxLength" in node or "enum" in node
            case "array":
                return "maxItems" in node
            case "object" if "additionalProperties" in node:
                return "maxProperties" in node
        return True

    assert not [path for _, path, node in FIELDS if path.startswith(".spec") and not bounded(node)]


def test_the_schema_is_structural() -> None:
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "$defs", "propertyNames", "nullable"}
    found = [(path, key) for _, path, node in FIELDS for key in node if key in forbidden]
    assert not found
    untyped = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"}
    assert all(("type" in node) != bool(untyped & set(node)) for _, _, node in FIELDS)


def test_a_default_never_makes_a_required_choice_for_the_user() -> None:
    spec = SCHEMAS["finetunejobs.yaml"]["properties"]["spec"]
    assert set(spec["required"]) == {"model", "dataset", "output"}
    assert SCHEMAS["modeldeployments.yaml"]["properties"]["spec"]["required"] == ["model"]


def test_columns_point_at_fields_that_exist() -> None:
    for name, crd in crds().items():
        paths = {path for _, path, _ in [(name, p, n) for p, n in walk(SCHEMAS[name])]}
        for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]:
            path = column["jsonPath"].split("[?")[0].replace(".metrics.eval_f1_macro", ".metrics")
            assert path in paths or path == ".metadata.creationTimestamp", column


def test_every_field_is_described_and_its_description_tells_its_default() -> None:
    """`kubectl explain` shows descriptions, and no defaults."""
    silent = [
        path
        for schema in SCHEMAS.values()
        for part in ("spec", "status")
        for path, node in walk(schema["properties"][part], part)
        if not path.endswith("[]") and not (node.get("description") or "").endswith(default_told(node) or ".")
    ]
    assert silent == []


def test_descriptions_tell_the_defaults() -> None:
    spec = SCHEMAS["finetunejobs.yaml"]["properties"]["spec"]["properties"]
    assert spec["numNodes"]["description"].endswith(" Default: 1.")
    assert spec["export"]["description"].endswith(" Default: safetensors, onnx.")
    assert "Default" not in spec["image"]["description"]
