"""What the training engine minimizes, at which rate, and what is told of its steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from luthier_api.training import Task
from luthier_trainer.engine.finetuner import FineTuner
from luthier_trainer.engine.losses import Loss, balanced_weights, positive_weights
from luthier_trainer.engine.watcher import Watcher
from luthier_trainer.runtime.progress import Progress
from support.trainer.engine import data_of, model_of, spec_of, step_of, tuner_of

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]


def test_losses_are_those_of_torch_and_weights_those_of_scikit_learn() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 3), torch.arange(50) ** 2 % 3
    weights = torch.from_numpy(balanced_weights(targets.numpy(), 3))[: int(targets.max()) + 1]
    present = np.unique(targets.numpy())
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=targets.numpy()))
    for smoothing in (0.0, 0.1):
        found = Loss("cross-entropy", smoothing=smoothing).rows(logits, targets)
        wanted = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(found, wanted)
    weighted = Loss("cross-entropy", torch.tensor([1.0, 5.0, 2.0])).rows(logits, targets)
    wanted = functional.cross_entropy(logits, targets, reduction="none", weight=torch.tensor([1.0, 5.0, 2.0]))
    torch.testing.assert_close(weighted, wanted)
    several = (logits > 1).float()
    positive = torch.from_numpy(positive_weights(several.numpy()))
    found = Loss("binary-cross-entropy", positive).rows(logits, several)
    counts = several.sum(dim=0)
    wanted = functional.binary_cross_entropy_with_logits(logits, several, pos_weight=(50 - counts) / counts)
    torch.testing.assert_close(found.mean(), wanted)


def test_class_weights_and_smoothing_are_trained_with_and_not_judged_by(
    tmp_path: Path, tiny_models: Models, reviews: Any
) -> None:
    folder, task = tiny_models("bert"), Task.TEXT_CLASSIFICATION
    rows = [row for row in reviews[:80] if row[1] == "negative" or len(row[0]) > 80]
    data = data_of(folder, task, rows, held_out=10)

    def made(**fields: Any) -> FineTuner:
        return tuner_of(tmp_path, model_of(folder, task), data, spec_of(task, **fields))

    plain, weighted, smoothed = made(), made(classWeights="balanced"), made(labelSmoothing="0.2")
    losses = [step_of(tuner)[0] for tuner in (plain, weighted, smoothed)]
    assert len({round(loss, 6) for loss in losses}) == 3
    judged = {round(tuner.predictions(data.held_out).loss, 6) for tuner in (plain, weighted, smoothed)}
    assert len(judged) == 1


@pytest.mark.parametrize(
    ("scheduler", "last"), [("linear", 0.0), ("cosine", 0.0), ("polynomial", 1e-7), ("constant", 5e-4)]
)
def test_the_learning_rate_warms_up_and_falls_as_the_spec_says(
    tmp_path: Path, tiny_models: Models, reviews: Any, scheduler: str, last: float
) -> None:
    folder, task = tiny_models("bert"), Task.TEXT_CLASSIFICATION
    data = data_of(folder, task, reviews[:84], held_out=20)
    spec = spec_of(task, scheduler=scheduler, warmupRatio="0.5", adamBeta1="0.8", epochs=2)
    rates: list[float] = []

    class Rates(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, optimizer: Any, **kwargs: Any) -> None:
            rates.append(optimizer.param_groups[0]["lr"])
            assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)
            assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]

    tuner = tuner_of(tmp_path, model_of(folder, task), data, spec, Rates())
    tuner.train()
    assert rates[:4] == pytest.approx([1.25e-4, 2.5e-4, 3.75e-4, 5e-4])
    assert len(rates) == 8 and rates[-1] == pytest.approx(last, abs=1e-8)


def test_progress_counts_steps_examples_and_real_tokens_through_accumulation(
    tmp_path: Path, tiny_models: Models, reviews: Any
) -> None:
    folder, task = tiny_models("bert"), Task.TEXT_CLASSIFICATION
    data = data_of(folder, task, reviews[:70], held_out=20)
    now, seen = [0.0], []

    class Second(transformers.TrainerCallback):
        """Every step takes a second, and every evaluation ten."""

        def on_step_begin(self, *_: Any, **kwargs: Any) -> None:
            now[0] += 1

        def on_prediction_step(self, *_: Any, **kwargs: Any) -> None:
            now[0] += 10

        def on_step_end(self, *_: Any, **kwargs: Any) -> None:
            seen.append(progress.document())

    progress = Progress(lambda: now[0])
    spec = spec_of(task, epochs=2, batchSize=5, gradientAccumulationSteps=4, evalSteps=2)
    tuner = tuner_of(tmp_path, model_of(folder, task), data, spec, Watcher(progress, bar=False), Second())
    tuner.train()
    assert [each.step for each in seen] == [1, 2, 3, 4, 5, 6]
    assert {each.total_steps for each in seen} == {6}
    assert [each.epoch for each in seen] == pytest.approx([0.3333, 0.6667, 1.0, 1.3333, 1.6667, 2.0])
    # 20, 20 and 10 examples; the evaluation after the second step is no training.
    assert [each.examples_per_second for each in seen[:3]] == [20.0, 20.0, 16.67]
    assert seen[2].tokens_per_second == pytest.approx(float(data.train.lengths.sum()) / 3, abs=0.1)
    assert seen[2].eta_seconds == 13.0
    history = [entry for entry in tuner.state.log_history if "loss" in entry]
    assert all(entry["tokens_per_second"] > 0 for entry in history)
    assert {"eval_loss", "eval_accuracy"} <= progress.document().metrics.keys()
