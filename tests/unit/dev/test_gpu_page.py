"""docs/gpu.md names the GPU tests that there are, all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


def test_the_page_on_gpus_names_every_gpu_test_and_no_other() -> None:
    written = {
        name
        for path in (ROOT / "tests" / "gpu").glob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "gpu.md").read_text()))
    assert named == written
