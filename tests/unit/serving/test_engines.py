"""Which engine and which file are chosen, and what is downloaded for them."""

import pytest

from luthier_api.base import Engine
from luthier_serving.compute.engines import needed_files, select_engine, select_onnx_file

pytestmark = pytest.mark.unit

SMALL = ["config.json", "luthier.json", "reference.json", "tokenizer.json"]
OTHERS = ["README.md", "adapter/adapter_model.safetensors", "metrics.json", "report.html", "tokenizer_config.json"]
WEIGHTS = ["model.safetensors"]


@pytest.mark.parametrize(
    ("engine", "gpus", "expected"),
    [("auto", 0, "onnxruntime"), ("auto", 1, "torch"), ("torch", 0, "torch"), ("onnxruntime", 1, "onnxruntime")],
)
def test_auto_is_torch_with_a_gpu_and_onnx_runtime_without(engine: Engine, gpus: int, expected: str) -> None:
    assert select_engine(engine, gpus=gpus) == expected


@pytest.mark.parametrize(
    ("engine", "gpus", "weights", "expected"),
    [
        ("auto", 0, ["model.onnx"], ["model.onnx"]),
        ("auto", 0, ["model.int8.onnx", "model.onnx"], ["model.int8.onnx"]),
        ("onnxruntime", 1, ["model.onnx", "model.onnx.data"], ["model.onnx", "model.onnx.data"]),
        (
            "auto",
            0,
            ["model.int8.onnx", "model.int8.onnx.data", "model.onnx", "model.onnx.data"],
            ["model.int8.onnx", "model.int8.onnx.data"],
        ),
        ("auto", 0, [], []),
        ("auto", 1, ["model.int8.onnx", "model.onnx"], ["model.safetensors"]),
        (
            "torch",
            0,
            ["model-00001-of-00002.safetensors", "model.onnx", "model.safetensors.index.json"],
            ["model-00001-of-00002.safetensors", "model.safetensors", "model.safetensors.index.json"],
        ),
    ],
)
def test_only_what_the_engine_reads_is_fetched(
    engine: Engine, gpus: int, weights: list[str], expected: list[str]
) -> None:
    found = needed_files(engine, sorted([*SMALL, *OTHERS, *WEIGHTS, *weights]), gpus=gpus)
    assert sorted(found) == sorted([*SMALL, *expected])


def test_without_any_onnx_file_none_is_chosen() -> None:
    assert select_onnx_file(["model.safetensors", "model.onnx.data"]) is None
