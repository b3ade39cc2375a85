"""YAML files with resources: read, checked against the contract, and edited in place.

`pinned` changes the characters of one value and nothing else: comments, quotes, order and indentation of the file stay
as their author wrote them, so the commit shows one line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from luthier.errors import Invalid, NotFound
from luthier.kinds import KINDS, MODELDEPLOYMENT, Kind, Raw, kind_names
from luthier_api import API_VERSION


@dataclass(frozen=True)
class Manifest:
    """One resource of a file."""

    kind: Kind
    raw: Raw

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        """The namespace that the file names, if it does."""
        named = self.raw["metadata"].get("namespace")
        return str(named) if named else None


def read_text(path: Path) -> str:
    """Return a file's text, with its line ends as they are; `-` is standard input."""
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}.") from error


def read_manifests(path: Path) -> list[Manifest]:
    """Return the resources of a file, each checked against the contract.

    Raises:
        Invalid: if it is no YAML, has a resource of another kind, or a field that cannot be right.
    """
    found = [_checked(document, path) for document in _documents(read_text(path), path) if document is not None]
    if not found:
        raise Invalid(f"{path} holds no resource.")
    return found


def validate(kind: Kind, spec: Raw, where: str) -> None:
    """Check a spec against the contract, unknown fields included.

    Raises:
        Invalid: with the first field that is wrong.
    """
    try:
        kind.spec.model_validate(spec, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in ("spec", *first["loc"]))
        wrong = (
            "there is no such field"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ")
        )
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise Invalid(f"{where}: {field}: {wrong}{more}.") from error


def _documents(text: str, path: Path) -> list[Any]:
    with _yaml_of(path):
        return list(yaml.safe_load_all(text))


@contextmanager
def _yaml_of(path: Path) -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise Invalid(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}.") from error


def _checked(document: Any, path: Path) -> Manifest:
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        raise Invalid(f"{path} holds something that is no Kubernetes resource.")
    kind = next((each for each in KINDS if each.name == document.get("kind")), None)
    if kind is None or document.get("apiVersion") != API_VERSION:
        what = f"{document.get('kind', 'a resource without kind')} ({document.get('apiVersion', 'no apiVersion')})"
        raise Invalid(f"{path} holds {what}; luthier takes {kind_names('and')} of {API_VERSION}, kubectl all others.")
    name = document["metadata"].get("name")
    if not isinstance(name, str):
        raise Invalid(f"{path}: a {kind.name} has no metadata.name.")
    validate(kind, document.get("spec") or {}, f"{path}: {kind.name} {name}")
    return Manifest(kind, document)


def dump(*documents: Raw) -> str:
    """Return resources as YAML, in the order of their fields."""
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120, explicit_start=False)


@dataclass(frozen=True)
class Pin:
    """The version that a ModelDeployment is to serve; `uri` and `digest` are for one that names its model by them."""

    version: str
    uri: str | None = None
    digest: str | None = None


def pinned(text: str, pin: Pin, path: Path, name: str | None = None) -> str:
    """Return a file's text with one ModelDeployment pinned to a version.

    Raises:
        Invalid: if there is no ModelDeployment, several and no name, or one by uri and the pin has none.
    """
    model = _child(_child(_deployment(text, path, name), "spec"), "model")
    reference = _child(model, "fineTuneJobRef")
    if isinstance(reference, yaml.MappingNode):
        return _with_values(text, reference, {"version": pin.version}, after="name")
    if not isinstance(model, yaml.MappingNode):
        raise Invalid(f"The ModelDeployment in {path} has no spec.model.")
    if pin.uri is None or pin.digest is None:
        raise Invalid(
            f"The ModelDeployment in {path} names its model by uri and digest: use --from, or give --uri and --digest."
        )
    return _with_values(text, model, {"uri": pin.uri, "digest": pin.digest}, after="uri")


def _deployment(text: str, path: Path, name: str | None) -> yaml.MappingNode:
    with _yaml_of(path):
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if isinstance(node, yaml.MappingNode)]
    named = {
        str(getattr(_child(_child(node, "metadata"), "name"), "value", "")): node
        for node in nodes
        if getattr(_child(node, "kind"), "value", None) == MODELDEPLOYMENT.name
    }
    if not named:
        raise Invalid(f"{path} holds no ModelDeployment.")
    if name is None and len(named) > 1:
        raise Invalid(f"{path} holds several ModelDeployments: choose one with --name: {', '.join(named)}.")
    if name is not None and name not in named:
        raise Invalid(f"{path} holds no ModelDeployment {name}; it has: {', '.join(named)}.")
    return named[name] if name is not None else next(iter(named.values()))


def _pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from node.value


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    return next((value for found, value in _pairs(node) if found.value == key), None)


def _with_values(text: str, node: yaml.MappingNode, values: dict[str, str], *, after: str) -> str:
    """Set values of a mapping, the last in the file first, so that the places of the others stay right."""
    edits: list[tuple[int, int, str]] = []
    for key, value in values.items():
        found = _child(node, key)
        if found is not None:
            edits.append((found.start_mark.index, found.end_mark.index, _scalar(value)))
        else:
            edits.append(_insertion(text, node, key, value, after))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _insertion(text: str, node: yaml.MappingNode, key: str, value: str, after: str) -> tuple[int, int, str]:
    anchor = next((pair for pair in _pairs(node) if pair[0].value == after), None)
    if anchor is None:
        raise Invalid(f"spec.model has no {after} after which {key} could stand.")
    if node.flow_style:
        return anchor[1].end_mark.index, anchor[1].end_mark.index, f", {key}: {_scalar(value)}"
    end = text.find("\n", anchor[1].end_mark.index)
    end = len(text) if end < 0 else end
    line_end = "\r\n" if text[:end].endswith("\r") else "\n"
    end -= len(line_end) - 1
    return end, end, f"{line_end}{' ' * anchor[0].start_mark.column}{key}: {_scalar(value)}"


def _scalar(value: str) -> str:
    """Write a text as YAML: in quotes only where it would be read as something else."""
    try:
        plain = yaml.safe_load(f"x: {value}") == {"x": value}
    except yaml.YAMLError:
        plain = False
    return value if plain else json.dumps(value)
