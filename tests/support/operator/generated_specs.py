"""Random resources from the CRDs' own OpenAPI schemas, with hostile text wherever text is free.

A field that somebody adds to a model tomorrow is generated tomorrow. Most resources are a valid one with a few fields
replaced, so that the API server admits many of them; CEL rules are for the API server to judge.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from luthier_api.schema import crds

Node = dict[str, Any]

HOSTILE = (
    "$(PATH)",
    "$(LUTHIER_OUTPUT_AWS_SECRET_ACCESS_KEY)",
    "; rm -rf / #",
    "`id`",
    "$(id)",
    "{{ .Values.image }}",
    "${HOME}",
    "%s%n",
    "a\nb: c\n- d",
    "'\"\\",
    "\u202etxt.exe",
    "NUL-less \x07",
    "../../etc/passwd",
    "true",
    "0",
    "\U0001f9ec",
)
_WORDS = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
)
_DECIMALS = st.one_of(
    st.decimals("0", "1", places=3).map(str),
    st.sampled_from(["1e-5", "2E+3", "-0.5", "0", "1", "5e-324", "abc", "NaN"]),
)
_LARGEST = 2**31 - 1

LEAST: dict[str, Node] = {
    "FineTuneJob": {
        "model": {"uri": "s3://models/base"},
        "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
        "output": {"name": "sentiment", "uri": "s3://models/"},
    },
    "ModelDeployment": {"model": {"fineTuneJobRef": {"name": "reviews"}}},
    "BatchPrediction": {
        "model": {"fineTuneJobRef": {"name": "reviews"}},
        "input": {"uri": "s3://data/reviews.csv"},
        "output": {"uri": "s3://predictions/reviews/"},
    },
}
SCHEMAS: dict[str, Node] = {
    crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for crd in crds().values()
}


def values(node: Node) -> st.SearchStrategy[Any]:
    """Return values that a node of the schema mostly allows."""
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        if "maxLength" in node:  # a decimal, or a quantity
            return st.one_of(st.integers(0, 70000), _texts(node))
        return st.one_of(st.integers(0, 70000), st.sampled_from(["auto", "large"]))
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return st.one_of(_texts(node), _texts(node).map(lambda name: {"name": name}))
    match node["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = node.get("minimum", 0), min(node.get("maximum", _LARGEST), _LARGEST)
            return st.one_of(st.sampled_from([low, high]), st.integers(low, high), st.integers(low, min(high, low + 3)))
        case "array":
            return st.lists(values(node["items"]), min_size=node.get("minItems", 0), max_size=4)
        case "object" if "properties" in node:
            return _objects(node)
        case "object":
            keys = st.one_of(_WORDS, st.sampled_from(["cpu", "memory", "example.com/nic", "optim", "zone"]))
            return st.dictionaries(keys, values(node["additionalProperties"]), max_size=3)
        case _:
            return _texts(node)


def _objects(node: Node) -> st.SearchStrategy[Node]:
    fields, required = node["properties"], node.get("required", [])
    return st.sets(st.sampled_from(sorted(fields)), max_size=3).flatmap(
        lambda some: st.fixed_dictionaries({name: values(fields[name]) for name in sorted({*some, *required})})
    )


def _texts(node: Node) -> st.SearchStrategy[str]:
    longest = node.get("maxLength", 64)
    if pattern := node.get("pattern") or _pattern_of_a_rule(node):
        plain = st.characters(codec="utf-8", exclude_characters="\0")
        return st.from_regex(pattern, fullmatch=True, alphabet=plain).filter(lambda text: len(text) <= longest)
    if longest == 32 and "x-kubernetes-validations" in node:
        return _DECIMALS
    return _WORDS.map(lambda text: text[:longest]).filter(lambda text: len(text) >= node.get("minLength", 0))


def _pattern_of_a_rule(node: Node) -> str | None:
    """Return the pattern of a rule that is nothing else, as URIs have it for its message."""
    rules = (
        re.fullmatch(r"self\.matches\(r'(.+)'\)", rule["rule"]) for rule in node.get("x-kubernetes-validations", ())
    )
    return next((rule[1] for rule in rules if rule), None)


def places(node: Node, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Yield every field below a node, by its path."""
    for name, child in node.get("properties", {}).items():
        yield (*path, name), child
        yield from places(child, (*path, name))


@st.composite
def specs(draw: st.DrawFn, kind: str) -> Node:
    """Draw the least spec with a few fields of any depth replaced."""
    spec = copy.deepcopy(LEAST[kind])
    everywhere = list(places(SCHEMAS[kind]))
    for path, node in draw(
        st.lists(st.sampled_from(everywhere), min_size=1, max_size=2, unique_by=lambda each: each[0])
    ):
        inner: Any = spec
        schema = SCHEMAS[kind]
        for name in path[:-1]:
            schema = schema["properties"][name]
            if isinstance(inner, dict) and name not in inner:
                inner[name] = {field: draw(values(schema["properties"][field])) for field in schema.get("required", ())}
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[path[-1]] = draw(values(node))
    return spec
