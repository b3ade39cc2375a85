"""The script from which the tutorial starts, taken from the page: it has to train a model."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.pages import marked_with

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_the_script_of_the_tutorial_trains_a_model(
    tiny_models: Callable[[str], Path], reviews: Any, tmp_path: Path
) -> None:
    (shown,) = marked_with(
        "tests/integration/cli/test_tutorial_script.py::test_the_script_of_the_tutorial_trains_a_model"
    )
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *reviews[:60]])
    script, replaced = re.subn(r'^NAME = ".*"$', f'NAME = "{tiny_models("bert")}"', shown.text, flags=re.MULTILINE)
    assert replaced == 1
    (tmp_path / "train.py").write_text(script)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "train.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "eval_accuracy" in done.stdout
    published = {path.name for path in (tmp_path / "model_v2_final").iterdir()}
    assert published >= {"config.json", "model.safetensors", "tokenizer.json"}
