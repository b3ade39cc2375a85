"""What transformers says about itself, read from its source, because importing it would import torch.

`import torch` costs seconds and half a gigabyte, and *prepare* runs where neither is to spare. Two facts are needed
before a GPU is asked for: which model types have the head of a task, and which fields TrainingArguments has. Both
are plain literals in the source of every transformers release that is supported.
"""

import ast
import re
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path


def transformers_version() -> str:
    """The release that is installed."""
    return version("transformers")


@cache
def model_types(auto_class: str) -> frozenset[str]:
    """Return the model types (config.json's model_type) of an Auto class, such as AutoModelForTokenClassification."""
    head = auto_class.removeprefix("AutoModelFor")
    name = f"MODEL_FOR_{re.sub('(?<!^)(?=[A-Z])', '_', head).upper()}_MAPPING_NAMES"
    for node in _module("models/auto/modeling_auto.py").body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            assert isinstance(node.value, ast.Call)
            pairs = ast.literal_eval(node.value.args[0])
            return frozenset(model_type for model_type, _ in pairs)
    raise LookupError(f"transformers {transformers_version()} has no {name}; Luthier supports 5.17 and later")


@cache
def training_argument_types() -> dict[str, frozenset[str]]:
    """Return the fields of TrainingArguments, each with the names of the types in its annotation."""
    for node in _module("training_args.py").body:
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments":
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            return {
                field.target.id: _type_names(field.annotation) for field in fields if isinstance(field.target, ast.Name)
            }
    raise LookupError(
        f"transformers {transformers_version()} has no TrainingArguments; Luthier supports 5.17 and later"
    )


def _module(path: str) -> ast.Module:
    spec = find_spec("transformers")
    assert spec and spec.origin, "transformers is a dependency of this package"
    return ast.parse((Path(spec.origin).parent / path).read_text(encoding="utf-8"))


def _type_names(annotation: ast.expr) -> frozenset[str]:
    """Return every name in an annotation, so that `float | None` gives float and None; quoted ones too."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    if "Optional" in names or any(isinstance(n, ast.Constant) and n.value is None for n in ast.walk(annotation)):
        names.add("None")
    return frozenset(names)
