"""QLoRA on a GPU: what is learned beside a base model in four bits is merged onto all of its bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from support.trainer.methods import ARCHITECTURES, MethodBench, Models, logits, with_adapter, with_larger_weights

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def bases(tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return with_larger_weights(tiny_models, tmp_path_factory.getbasetemp())


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> MethodBench:
    return MethodBench(tmp_path, capsys)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_qlora_learns_beside_four_bits_and_is_merged_onto_all_of_them(
    bench: MethodBench, bases: Models, architecture: str, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    base = bases(architecture)
    folder, metrics = bench.artifact(base, {"type": "QLoRA"})
    assert metrics["eval_loss"] < metrics["untrained_loss"] - 0.1
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    adapted = with_adapter(base, folder)
    assert torch.allclose(logits(adapted), logits(plain), atol=1e-5, rtol=0)
