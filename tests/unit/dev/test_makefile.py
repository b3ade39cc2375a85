"""The Makefile: a variable that nobody defines is empty, and a target then does something else than it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


def test_every_variable_of_every_target_is_defined() -> None:
    targets = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"test", "integration", "mutants"} <= set(targets)
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", "--warn-undefined-variables", *targets],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "undefined variable" not in printed.stderr, printed.stderr
