"""The torch engine on a real GPU computes what ONNX Runtime computes on the CPU."""

from pathlib import Path

import numpy as np
import pytest

from luthier_serving.classifier import Classifier
from luthier_serving.engines import open_engine

pytestmark = pytest.mark.gpu


def test_half_precision_on_the_gpu_agrees_with_the_cpu_also_in_padded_batches(artifact: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    texts = [" ".join(["good", "film", "bad", "was", "the"][: 1 + index % 5]) for index in range(200)]
    gpu = open_engine(artifact, "auto", gpus=1, cpus=1)
    assert gpu.name == "torch" and gpu.pads
    on_gpu = Classifier(artifact, gpu, max_tokens=512).predict(texts)
    on_cpu = Classifier(artifact, open_engine(artifact, "auto", gpus=0, cpus=1), max_tokens=512).predict(texts)
    rows = [np.array([row.probabilities for row in each]) for each in (on_gpu, on_cpu)]
    # bfloat16 keeps 8 bits of a number; the logits here are below 4.
    assert np.abs(rows[0] - rows[1]).max() < 0.03
