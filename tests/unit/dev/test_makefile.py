"""The Makefile: a variable that nobody defines is empty, and a target then does something else than it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE)


def test_every_target_is_declared_and_every_declared_one_is_there() -> None:
    (declared,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(declared.split()) == sorted(TARGETS)


def test_every_variable_of_every_target_is_defined() -> None:
    assert {"test", "integration", "mutants"} <= set(TARGETS)
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "--warn-undefined-variables", *TARGETS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "undefined variable" not in printed.stderr, printed.stderr
