"""The trainer on a GPU: precisions, and memory that does not suffice. Local folders only; skipped without a GPU."""

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
import torch

from luthier_api.documents import Result
from luthier_api.exitcodes import ExitCode
from luthier_api.training import Precision, Task
from luthier_trainer.cli import main
from luthier_trainer.runtime.errors import LossNotFinite
from support.trainer.engine import data_of, model_of, spec_of, tuner_of

pytestmark = pytest.mark.gpu


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


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FP32, 1e-4), (Precision.BF16, 5e-2)])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("task", [Task.TEXT_CLASSIFICATION, Task.TOKEN_CLASSIFICATION])
def test_packed_steps_are_those_of_padded_ones_and_wait_for_nothing(
    tmp_path: Path,
    tiny_models: Callable[[str], Path],
    reviews: Any,
    architecture: str,
    task: Task,
    precision: Precision,
    tolerance: float,
) -> None:
    """FlashAttention in bf16, padded attention in fp32."""
    folder = tiny_models(architecture)
    data = data_of(folder, task, reviews[:80], held_out=20)
    losses = {}
    for padding in ("auto", "max-length"):
        model = model_of(folder, task)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        tuner = tuner_of(tmp_path, model, data, spec_of(task, padding=padding), precision=precision)
        assert (tuner.forward.packing is not None) == (padding == "auto")
        (batch,) = next(iter(tuner.get_train_dataloader()))
        prepared = tuner.accelerator.prepare(tuner.model)
        torch.cuda.set_sync_debug_mode("error")
        try:
            loss = tuner.training_step(prepared, [batch])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        losses[padding] = float(loss)
        assert all(bool(torch.isfinite(weight.grad).all()) for weight in model.parameters() if weight.grad is not None)
    assert losses["auto"] == pytest.approx(losses["max-length"], abs=tolerance)


def test_a_loss_that_is_no_number_is_reported_with_its_step_when_somebody_reads_a_result(
    tmp_path: Path, tiny_models: Callable[[str], Path], reviews: Any
) -> None:
    folder = tiny_models("bert")
    data = data_of(folder, Task.TEXT_CLASSIFICATION, reviews[:180], held_out=20)
    spec = spec_of(Task.TEXT_CLASSIFICATION, learningRate="1e30")
    tuner = tuner_of(tmp_path, model_of(folder, Task.TEXT_CLASSIFICATION), data, spec)
    with pytest.raises(LossNotFinite, match=r"not a number at step [2-9]\."):
        tuner.train()


def test_auto_fits_the_memory_and_keeps_the_global_batch(
    tmp_path: Path, tiny_models: Callable[[str], Path], reviews: Any
) -> None:
    folder = tiny_models("bert")
    data = data_of(folder, Task.TEXT_CLASSIFICATION, reviews[:600], held_out=20)
    spec = spec_of(Task.TEXT_CLASSIFICATION, batchSize="auto", globalBatchSize=512)
    tuner = tuner_of(tmp_path, model_of(folder, Task.TEXT_CLASSIFICATION), data, spec)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(16 * 1024**2 / torch.cuda.mem_get_info()[1])
    try:
        output = tuner.train()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert tuner._shares.limits.tokens < int(data.train.lengths.sum())
    assert output.global_step == 2


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
    assert result.failure and "ower" in result.failure.message


def test_a_compiled_model_trains(tmp_path: Path, document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    document["spec"]["trainingArguments"] = {"torch_compile": "true"}
    document["spec"]["export"] = ["safetensors"]
    code, result = run(tmp_path, document, capsys)
    assert code == 0 and result.published, result


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
def test_two_gpus_train_the_curve_of_one_over_nccl(
    tmp_path: Path, tiny_models: Callable[[str], Path], document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    document["spec"] |= {"precision": "fp32", "export": ["safetensors"]}
    document["spec"]["hyperparameters"]["epochs"] = 2
    losses = {}
    for processes in ("1", "2"):
        document["spec"]["output"]["uri"] = (tmp_path / f"registry-{processes}").as_uri()
        path = tmp_path / f"run-{processes}.json"
        path.write_text(json.dumps(document))
        for command in ("prepare", "train"):
            environment = os.environ | {"LUTHIER_PROCESSES_PER_NODE": processes}
            argv = [sys.executable, "-m", "luthier_trainer", command, str(path), "--port", "0"]
            done = subprocess.run(
                [*argv, "--workspace", str(tmp_path / processes)], env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr[-4000:]
            result = Result.from_json(done.stdout)
            if result.prepared:
                resolved = result.prepared.resolved.to_wire()
                path.write_text(json.dumps(document | {"resolved": resolved}))
        assert result.published
        folder = Path(result.published.uri.removeprefix("file://"))
        losses[processes] = json.loads((folder / "metrics.json").read_text())["metrics"]["eval_loss"]
    # Each process draws its own dropout.
    assert losses["2"] == pytest.approx(losses["1"], abs=0.05)
