"""From a CSV to a version without a cluster: what `luthier init --local` proposes is what `luthier run` trains."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_csv_becomes_a_version_on_this_machine(
    tiny_models: Callable[[str], Path], reviews: Any, tmp_path: Path
) -> None:
    data = tmp_path / "reviews.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *reviews[:120]])

    def luthier(*arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", "-m", "luthier", *arguments]
        environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    model = tiny_models("bert").as_uri()
    said = luthier(
        "init",
        "reviews.csv",
        "--local",
        "--model",
        model,
        "--gpus",
        "0",
        "--epochs",
        "1",
        "--max-length",
        "32",
        "-w",
        "job.yaml",
    )
    assert "Next: luthier run job.yaml" in said
    assert "counted by the tokenizer of" in said, "transformers is installed here, and the model's folder has one"
    published = json.loads(luthier("run", "job.yaml"))["published"]
    assert published["uri"].startswith((tmp_path / "models" / "reviews").as_uri())
    assert "eval_accuracy" in published["metrics"]
    lineage = json.loads(luthier("lineage", published["uri"], "-o", "json"))
    assert lineage["lineage"]["datasetUri"] == data.as_uri()
    assert lineage["labels"] == sorted({label for _, label in reviews[:120]})
    again = json.loads(luthier("run", "job.yaml"))["published"]
    assert (again["version"], again["reused"]) == (published["version"], True), (
        "the same run is found, not trained again"
    )
