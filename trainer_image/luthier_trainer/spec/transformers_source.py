"""What transformers says about itself, read from its source, because importing it would import torch.

`import torch` costs seconds and half a gigabyte, and *prepare* runs where neither is to spare. Three facts are needed
before a GPU is asked for: which model types have the head of a task, which fields TrainingArguments has, and what its
schedulers take. All are plain literals in the source of every transformers release that is supported.
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


@cache
def scheduler_parameters(scheduler: str) -> frozenset[str]:
    """Return the arguments of a scheduler's function that may be given in lr_scheduler_kwargs.

    Args:
        scheduler: its name in SchedulerType, such as cosine.
    """
    functions, table = {}, None
    for node in _module("optimization.py").body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node.args
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "TYPE_TO_SCHEDULER_FUNCTION":
            table = node.value
    if isinstance(table, ast.Dict):
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(key, ast.Attribute) and isinstance(value, ast.Name) and key.attr == scheduler.upper():
                arguments = functions[value.id]
                names = frozenset(argument.arg for argument in (*arguments.args, *arguments.kwonlyargs))
                return names - {"optimizer", "num_warmup_steps", "num_training_steps"}
    raise LookupError(
        f"transformers {transformers_version()} has no scheduler {scheduler}; Luthier supports 5.17 and later"
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
