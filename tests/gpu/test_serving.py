"""The torch engine on a real GPU computes what ONNX Runtime computes on the CPU."""

from pathlib import Path

import numpy as np
import pytest

from luthier_serving.compute.model import open_model
from support.serving.artifact import make_artifact

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("artifact"))


def test_half_precision_on_the_gpu_agrees_with_the_cpu_also_in_padded_batches(artifact: Path) -> None:
    texts = [" ".join(["good", "film", "bad", "was", "the"][: 1 + index % 5]) for index in range(200)]
    gpu, cpu = (open_model(artifact, "auto", gpus=gpus, max_tokens=512) for gpus in (1, 0))
    assert (gpu.merges_calls, cpu.merges_calls) == (True, False)
    assert (gpu.info.weights, cpu.info.weights) == ("model.safetensors", "model.onnx")
    rows = [np.array([row.values for row in model.predict(texts)]) for model in (gpu, cpu)]
    # bfloat16 keeps 8 bits of a number; the logits here are below 4.
    assert np.abs(rows[0] - rows[1]).max() < 0.03
