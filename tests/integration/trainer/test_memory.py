"""Memory that runs out, as it does on a GPU: a smaller piece of the same batch, what fits at all, or what to lower."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from luthier_api.training import Task
from luthier_trainer.engine.collate import MicroBatch
from luthier_trainer.engine.finetuner import FineTuner
from luthier_trainer.engine.memory import largest_that_fits
from luthier_trainer.engine.watcher import Watcher
from luthier_trainer.runtime.errors import GpuOutOfMemory
from luthier_trainer.runtime.progress import Progress
from support.trainer.engine import assert_same, data_of, gradients, model_of, spec_of, tuner_of, without_dropout

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]


def out_of_memory_beyond(tuner: FineTuner, monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """Let the forward pass fail as it does on a GPU; returns the tokens of each try, which grows."""
    compute, tries = tuner.forward.logits, []

    def limited(model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        tries.append(sum(batch.lengths))
        if sum(batch.lengths) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(model, batch)

    monkeypatch.setattr(tuner.forward, "logits", limited)
    return tries


def test_memory_that_runs_out_is_answered_by_half_the_batch_at_once_and_the_same_global_batch(
    tmp_path: Path, tiny_models: Models, reviews: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, task = tiny_models("bert"), Task.TEXT_CLASSIFICATION
    data = data_of(folder, task, reviews[:100], held_out=20)

    def run(name: str, tokens: int) -> tuple[FineTuner, Progress, list[int]]:
        progress = Progress()
        model = without_dropout(model_of(folder, task))
        tuner = tuner_of(tmp_path / name, model, data, spec_of(task, evalBatchSize=4), Watcher(progress, bar=False))
        tries = out_of_memory_beyond(tuner, monkeypatch, tokens)
        tuner.train()
        return tuner, progress, tries

    calm, _, untroubled = run("calm", 10**6)
    largest = max(untroubled)
    with caplog.at_level(logging.WARNING, "luthier_trainer"):
        tight, progress, tries = run("tight", largest - 1)
    assert (tight.memory_retries, calm.memory_retries) == (1, 0)
    assert tries.count(largest) == 1 and sum(tries) - largest == sum(untroubled)
    assert "tried again with at most 8, of the same global batch" in caplog.text
    assert progress.document().metrics["texts_at_once"] == 8
    assert isinstance(calm.model, nn.Module) and isinstance(tight.model, nn.Module)
    assert_same(dict(tight.model.state_dict()), dict(calm.model.state_dict()))
    assert tight.state.global_step == calm.state.global_step == 5


def test_memory_that_never_suffices_ends_the_run_with_what_to_lower(
    tmp_path: Path, tiny_models: Models, reviews: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = tiny_models("bert"), Task.TEXT_CLASSIFICATION
    data = data_of(folder, task, reviews[:60], held_out=20)
    tuner = tuner_of(tmp_path, model_of(folder, task), data, spec_of(task))
    tries = out_of_memory_beyond(tuner, monkeypatch, 5)
    with pytest.raises(GpuOutOfMemory, match=r"at step 1 with \d+ texts of \d+ tokens at once, half as many"):
        tuner.train()
    assert len(tries) == 2


def test_auto_is_what_fits_of_the_longest_texts(
    tmp_path: Path, tiny_models: Models, reviews: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = tiny_models("bert"), Task.TEXT_CLASSIFICATION
    data = data_of(folder, task, reviews[:200], held_out=20)
    tuner = tuner_of(tmp_path, model_of(folder, task), data, spec_of(task, batchSize="auto", globalBatchSize=64))
    longest = np.sort(data.train.lengths)[::-1]
    tries = out_of_memory_beyond(tuner, monkeypatch, int(longest[:16].sum()))
    limits = tuner.probe_memory()
    assert tries == [int(longest[:count].sum()) for count in (1, 2, 4, 8, 16, 32)]
    assert limits.tokens == int(longest[:16].sum() * 0.9)
    assert isinstance(tuner.model, nn.Module) and not gradients(tuner.model)
    out_of_memory_beyond(tuner, monkeypatch, 1)
    with pytest.raises(GpuOutOfMemory, match="no memory to train on one text of 32 tokens"):
        tuner.probe_memory()


@pytest.mark.parametrize(("most", "limit", "found"), [(64, 10, 8), (20, 100, 20), (1, 1, 1), (9, 9, 9), (8, 0, 0)])
def test_sizes_are_doubled_until_one_does_not_fit(most: int, limit: int, found: int) -> None:
    def try_out(size: int) -> None:
        assert size <= most
        if size > limit:
            raise torch.OutOfMemoryError

    assert largest_that_fits(try_out, most) == found
