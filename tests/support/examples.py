"""The examples of the repository that are resources as they stand, each a path.

What only kustomize makes whole is left out: its own files, and a base to which each overlay adds the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ENVIRONMENTS = EXAMPLES / "environments"


def _is_whole(document: dict[str, Any]) -> bool:
    return "model" in document.get("spec", {})


MANIFESTS = [path for path in sorted(EXAMPLES.rglob("*.yaml")) if _is_whole(yaml.safe_load(path.read_text()))]
