"""How raw results are written: small enough to commit, one record a line, so that a change of one shows as one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def as_lines(document: Mapping[str, Any]) -> str:
    """Write a document of JSON: each key on a line of its own, and each record of a list of records too."""
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_value(value)}" for key, value in document.items()) + "\n}\n"


def _value(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return "[\n" + ",\n".join(json.dumps(each) for each in value) + "\n]"
    return json.dumps(value)
