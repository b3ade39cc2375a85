from __future__ import annotations

import io
import json
import re
import sys

import pytest
from rich.console import Console

from luthier_dev import steps
from luthier_dev.errors import CommandFailed

pytestmark = pytest.mark.unit


@pytest.fixture
def progress(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_HOME", str(tmp_path))
    made = steps.Progress(Console(file=io.StringIO(), width=200))
    monkeypatch.setattr(steps, "PROGRESS", made)
    return made


def printed(progress: steps.Progress) -> list[str]:
    return progress.console.file.getvalue().splitlines()


def test_a_step_says_what_it_does_how_long_it_usually_takes_and_how_long_it_took(progress):
    with progress.step("Build etcd", usually_s=34):
        pass
    begun, done = printed(progress)
    assert begun == "→ Build etcd (usually 34 s)"
    assert re.fullmatch(r"✓ Build etcd \d\.\d s", done)


def test_a_program_that_fails_is_reported_once_with_the_end_of_its_output_and_its_log(progress, tmp_path):
    failing = "import sys\nfor n in range(50): print('line', n)\nsys.exit(3)"
    with pytest.raises(CommandFailed) as failure, progress.step("Outer"), progress.step("Inner"):
        steps.run_logged([sys.executable, "-c", failing])
    assert failure.value.returncode == 3
    text = "\n".join(printed(progress))
    assert "  ✗ Inner failed after" in text
    assert "✗ Outer failed after" in text
    assert text.count("line 49") == 1
    assert "line 20" not in text
    log = tmp_path / "logs" / "inner.log"
    assert text.count(str(log)) == 1
    assert "line 20" in log.read_text()


def test_times_are_kept_in_the_order_of_their_ends_with_their_depth(progress, tmp_path):
    with progress.step("Cluster"), progress.step("Node"):
        pass
    with pytest.raises(ValueError), progress.step("Chart"):
        raise ValueError("no chart")
    progress.save(tmp_path / "timings.json")
    saved = json.loads((tmp_path / "timings.json").read_text())
    assert [(each["name"], each["depth"], each["failed"]) for each in saved] == [
        ("Node", 1, False),
        ("Cluster", 0, False),
        ("Chart", 0, True),
    ]


def test_brackets_in_titles_and_errors_are_shown_as_they_are(progress):
    with pytest.raises(ValueError), progress.step("Build ray[serve]"):
        raise ValueError("no such extra: [serve]")
    text = "\n".join(printed(progress))
    assert "ray[serve]" in text
    assert "no such extra: [serve]" in text
