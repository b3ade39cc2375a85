"""The reference pages: all resources field by field, and the exit codes, as Markdown from the models."""

from collections.abc import Iterator
from typing import Any

from luthier_api.exitcodes import OUTCOMES, Retry
from luthier_api.schema import crds, default_told

_HEADER = "<!-- Generated from luthier_api by `make generate`. Do not edit. -->\n"


def _type_of(node: dict[str, Any]) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return "number in quotes, or integer" if "maxLength" in node else "integer or word"
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return "string"
    match node.get("type"):
        case "array":
            return f"list of {_type_of(node['items'])}"
        case "object" if "additionalProperties" in node:
            return "map of string"
        case other:
            return str(other)


def _bounds(node: dict[str, Any]) -> str:
    lower, upper = node.get("minimum"), node.get("maximum")
    return f" {lower} to {upper}" if lower is not None and upper is not None and upper < 2**31 - 1 else ""


def _default(node: dict[str, Any]) -> str:
    value = node.get("default")
    if value is None or value == {} or value == [] or isinstance(value, dict):
        return ""
    return f"`{value}`"


def _rows(path: str, node: dict[str, Any]) -> Iterator[str]:
    required = set(node.get("required", []))
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}"
        mark = " **required**" if name in required else ""
        rules = "".join(f" {rule['message']}." for rule in child.get("x-kubernetes-validations", []))
        text = child.get("description", "").removesuffix(default_told(child)).replace("|", "\\|") + rules
        yield f"| `{here}`{mark} | {_type_of(child)}{_bounds(child)} | {_default(child)} | {text} |"
        inner = child["items"] if child.get("type") == "array" else child
        yield from _rows(f"{here}[]" if child.get("type") == "array" else here, inner)


def reference_pages() -> dict[str, str]:
    """Return {file name: Markdown}: a page for each resource, and one for the exit codes."""
    pages = {"exit-codes.md": exit_code_page()}
    for definition in crds().values():
        kind = definition["spec"]["names"]["kind"]
        version = definition["spec"]["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]
        lines = [_HEADER, f"# {kind}\n", schema.get("description", "") + "\n"]
        for part in ("spec", "status"):
            lines += [f"## {part}\n", "| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
            lines += [*_rows(f".{part}", schema["properties"][part]), ""]
        pages[f"{kind.lower()}.md"] = "\n".join(lines)
    return pages


def exit_code_page() -> str:
    """Return the table of exit codes as Markdown."""
    lines = [
        _HEADER,
        "# Exit codes of a training pod\n",
        "The reason is that of the `Stalled` condition, of the Event and of `status.lastFailure`.\n",
        "| Code | Reason | Tried again | What to do |",
        "| --- | --- | --- | --- |",
    ]
    rules = {
        Retry.NEVER: "no",
        Retry.COUNTED: "up to backoffLimit",
        Retry.FREE: "always",
        Retry.PREPARE: "begins again with prepare",
    }
    for code, outcome in sorted(OUTCOMES.items()):
        lines.append(f"| {int(code)} | `{outcome.reason}` | {rules[outcome.retry]} | {outcome.hint} |")
    lines.append("")
    lines.append(
        "137 stands for memory only where Kubernetes says `OOMKilled`, or the pod itself does. A pod that was deleted, "
        "that never started, or of which its node knows no end (`ContainerStatusUnknown`, as after a restart of the "
        "node) is a disruption: always tried again, and not counted. One that somebody else killed is `Crashed`, up to "
        "backoffLimit.\n\nA `Crashed` that comes twice in a row at the same place, by the pod's own report, ends the "
        "run: a third pod would crash there too."
    )
    return "\n".join([*lines, ""])
