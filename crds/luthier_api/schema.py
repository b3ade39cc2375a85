"""The CRDs, generated from the models.

pydantic writes JSON Schema; a CRD holds a structural subset of OpenAPI v3. The differences, each handled here: `$ref`
is inlined, an integer or a word becomes int-or-string, a nullable type becomes an optional one, `title` and null
defaults go, `const` becomes `enum`, numeric exclusive bounds become the boolean form. What a user may
read of it is `kubectl explain`, which shows no defaults: so the descriptions say them.
"""

import json
from typing import Any

from luthier_api import GROUP, VERSION
from luthier_api.base import ApiModel
from luthier_api.batchprediction import BatchPrediction
from luthier_api.finetunejob import FineTuneJob
from luthier_api.modeldeployment import ModelDeployment

_DROPPED = {"title", "$defs", "additionalProperties", "patternProperties", "propertyNames"}


def _structural(node: Any, definitions: dict[str, Any]) -> Any:
    """Return a JSON Schema node as a structural OpenAPI v3 node."""
    if isinstance(node, list):
        return [_structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        return _structural({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if {option.get("type") for option in options} == {"integer", "string"}:
            # A number or a word; which ones is for CEL to say.
            return {"x-kubernetes-int-or-string": True} | {
                k: v for k, v in node.items() if k in ("default", "description")
            }
        (only,) = options
        return _structural({**only, **{key: value for key, value in node.items() if key != "anyOf"}}, definitions)
    result = {
        key: _structural(value, definitions) for key, value in node.items() if key not in _DROPPED | {"properties"}
    }
    if "properties" in node:
        result["properties"] = {name: _structural(child, definitions) for name, child in node["properties"].items()}
    # A structural schema knows no patterns for keys: pydantic's are left to pydantic.
    values = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    for value in values:
        if isinstance(value, dict):
            result["additionalProperties"] = _structural(value, definitions)
    if "default" in result:
        result["default"] = _without_nulls(result["default"])
        if result["default"] is None:
            del result["default"]
    if "const" in result:
        result["enum"] = [result.pop("const")]
    for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in result:
            result[plain], result[bound] = result[bound], True
    return result


def _without_nulls(value: Any) -> Any:
    """Return a default without its null fields, which the API server would prune anyway."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def default_told(node: dict[str, Any]) -> str:
    """Return the sentence that tells a field's default; empty if there is none, or if it is a whole object."""
    value = node.get("default")
    if value is None or value in ({}, []) or isinstance(value, dict):
        return ""
    words = ", ".join(value) if isinstance(value, list) else json.dumps(value).strip('"')
    return f" Default: {words}."


def _telling(node: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose descriptions tell the defaults."""
    children = {name: _telling(child) for name, child in node.get("properties", {}).items()}
    return {
        **node,
        **({"properties": children} if children else {}),
        **({"items": _telling(node["items"])} if "items" in node else {}),
        **({"description": node["description"] + told} if (told := default_told(node)) else {}),
    }


def schema_of(model: type[ApiModel]) -> dict[str, Any]:
    """Return the structural schema of a resource, with the root fields that every object has."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    schema: dict[str, Any] = _telling(_structural(raw, raw.get("$defs", {})))
    kind = {"apiVersion": "API version of this object.", "kind": "Kind of this object."}
    root = {name: {"type": "string", "description": text} for name, text in kind.items()}
    schema["properties"] = {**root, "metadata": {"type": "object"}, **schema["properties"]}
    schema["required"] = ["spec"]
    return schema


def _column(name: str, path: str, description: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    column = {"name": name, "jsonPath": path, "type": kind, "description": description}
    return {**column, "priority": priority} if priority else column


def _condition(type_: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_AGE = _column("Age", ".metadata.creationTimestamp", "Time since creation.", "date")

_FINETUNEJOB_COLUMNS = [
    _column("Phase", ".status.phase", "What is going on."),
    _column("Progress", ".status.progress.percent", "Percent of the training steps.", "integer"),
    _column("ETA", ".status.progress.eta", "Time of training left."),
    _column("F1", ".status.artifact.metrics.eval_f1_macro", "Macro F1 of the version."),
    _column("Version", ".status.artifact.version", "Version that this spec produced."),
    _AGE,
    _column("Ready", _condition("Ready"), "Whether the version exists.", priority=1),
    _column("Message", _condition("Ready", "message"), "Why, in one sentence.", priority=1),
]

_MODELDEPLOYMENT_COLUMNS = [
    _column("Phase", ".status.phase", "What is going on."),
    _column("Ready", ".status.readyReplicas", "Replicas that answer.", "integer"),
    _column("Version", ".status.currentVersion", "Version that answers requests."),
    _column("URL", ".status.url", "URL for requests from inside the cluster."),
    _AGE,
    _column("Available", _condition("Available"), "Whether requests are answered.", priority=1),
    _column("Message", _condition("Ready", "message"), "Why, in one sentence.", priority=1),
]

_BATCHPREDICTION_COLUMNS = [
    _column("Phase", ".status.phase", "What is going on."),
    _column("Version", ".status.version", "Version that predicts."),
    _column("Done", ".status.percent", "Percent of the shards that are in storage.", "integer"),
    _column("Rows", ".status.rows", "Rows of the input.", "integer"),
    _column("ETA", ".status.eta", "Time left."),
    _AGE,
    _column("Output", ".status.output", "Folder of the predictions.", priority=1),
    _column("Message", _condition("Ready", "message"), "Why, in one sentence.", priority=1),
]


def crd(
    model: type[ApiModel],
    *,
    plural: str,
    short: str,
    columns: list[dict[str, Any]],
    scale: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a resource model."""
    kind = model.__name__
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema_of(model)},
        "subresources": {"status": {}, **({"scale": scale} if scale else {})},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {**names, "categories": ["luthier"]},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def crds() -> dict[str, dict[str, Any]]:
    """Return {file name: CustomResourceDefinition} of all resources."""
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    return {
        "batchpredictions.yaml": crd(
            BatchPrediction, plural="batchpredictions", short="bp", columns=_BATCHPREDICTION_COLUMNS
        ),
        "finetunejobs.yaml": crd(FineTuneJob, plural="finetunejobs", short="ftj", columns=_FINETUNEJOB_COLUMNS),
        "modeldeployments.yaml": crd(
            ModelDeployment,
            plural="modeldeployments",
            short="mdep",
            columns=_MODELDEPLOYMENT_COLUMNS,
            scale=scale,
        ),
    }
