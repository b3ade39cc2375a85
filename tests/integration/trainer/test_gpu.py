"""The trainer on a GPU: precisions, and memory that does not suffice. Local folders only; skipped without a GPU."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier_api.documents import Result
from luthier_api.exitcodes import ExitCode
from luthier_trainer.cli import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture
def document(tmp_path: Path, tiny_models: Callable[[str], Path], reviews: Any) -> dict[str, Any]:
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *reviews[:400]])
    return {
        "spec": {
            "model": {"uri": tiny_models("bert").as_uri()},
            "dataset": {"train": {"uri": (tmp_path / "train.csv").as_uri()}, "preprocessing": {"maxLength": 32}},
            "hyperparameters": {"epochs": 1, "batchSize": 16, "learningRate": "5e-4"},
            "output": {"name": "m", "uri": (tmp_path / "registry").as_uri()},
        }
    }


def run(tmp_path: Path, document: dict[str, Any], capture: pytest.CaptureFixture[str]) -> tuple[int, Result]:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    capture.readouterr()
    code = main(["run", str(path)])
    return code, Result.from_json(capture.readouterr().out)


@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16"])
def test_every_precision_trains_and_its_export_agrees(
    tmp_path: Path, document: dict[str, Any], capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    document["spec"]["precision"] = precision
    code, result = run(tmp_path, document, capsys)
    assert code == 0, result
    assert result.published
    folder = Path(result.published.uri.removeprefix("file://"))
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    assert manifest["lineage"]["environment"]["precision"] == (expected if precision == "auto" else precision)
    assert manifest["lineage"]["environment"]["device"] == torch.cuda.get_device_name()
    exports = json.loads((folder / "metrics.json").read_text())["exports"]
    assert all(each["difference"] < 1e-3 for each in exports if each["format"] == "onnx")


def test_gpu_memory_that_does_not_suffice_is_said_with_what_to_lower(
    tmp_path: Path, document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    document["spec"]["hyperparameters"]["batchSize"] = 400
    torch.cuda.empty_cache()
    # A few MB: the model fits, and a batch of 400 does not.
    torch.cuda.set_per_process_memory_fraction(8 * 1024**2 / torch.cuda.mem_get_info()[1])
    try:
        code, result = run(tmp_path, document, capsys)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == ExitCode.GPU_OUT_OF_MEMORY
    assert result.failure and "batchSize 400" in result.failure.message
