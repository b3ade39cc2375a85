"""The training engine on tiny models: what is computed without padding is what padded batches would have been."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from luthier_api.training import Task
from luthier_trainer.engine import attention
from luthier_trainer.engine.attention import Layout
from luthier_trainer.engine.finetuner import FineTuner
from luthier_trainer.engine.schedule import BatchLimits, Schedule
from luthier_trainer.engine.step_data import StepShares
from support.trainer.engine import (
    assert_same,
    data_of,
    first_share,
    gradients,
    model_of,
    padded_step,
    spec_of,
    step_of,
    tuner_of,
    without_dropout,
)

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]
ARCHITECTURES = ("bert", "roberta", "distilbert")


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_steps_are_those_of_padded_batches(
    tmp_path: Path, tiny_models: Models, reviews: Any, architecture: str, task: Task
) -> None:
    folder = tiny_models(architecture)
    data = data_of(folder, task, reviews[:60], held_out=20, pairs=task is not Task.TOKEN_CLASSIFICATION)
    tuner = tuner_of(tmp_path, without_dropout(model_of(folder, task)), data, spec_of(task))
    (batch,) = first_share(tuner)
    assert batch.packed and batch.input_ids.shape == (1, sum(batch.lengths)), "no padding"
    loss, found = step_of(tuner)
    problem = tuner._task.problem_type
    extra = {"problem_type": problem} if problem else {}
    wanted_loss, wanted = padded_step(without_dropout(model_of(folder, task, **extra)), tuner)
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    assert_same(found, wanted)


@pytest.mark.parametrize("lengths", [(5,), (9, 9, 9), (12, 7, 7, 3, 1)], ids=str)
def test_attention_is_that_of_each_text_alone_grouped_or_padded(lengths: tuple[int, ...]) -> None:
    """Padded attention is what CUDA computes in fp32; without a GPU it is held to the same here."""
    torch.manual_seed(0)
    starts = torch.tensor([sum(lengths[:n]) for n in range(len(lengths))])
    layout = Layout.of(lengths, starts)
    query, key, value = (torch.randn(sum(lengths), 2, 8, requires_grad=True) for _ in range(3))
    alone = [
        functional.scaled_dot_product_attention(
            *(each[start : start + length].transpose(0, 1) for each in (query, key, value)), scale=0.3
        ).transpose(0, 1)
        for start, length in zip(starts.tolist(), lengths, strict=True)
    ]
    wanted = torch.cat(alone)
    slopes = torch.autograd.grad(wanted.square().sum(), (query, key, value))
    for found in (
        attention._by_length(query, key, value, layout, 0.0, 0.3, False),
        attention._padded(query, key, value, layout, 0.0, 0.3),
    ):
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(torch.autograd.grad(found.square().sum(), (query, key, value)), slopes)
    first = attention._by_length(query, key, value, layout, 0.0, 0.3, True)
    torch.testing.assert_close(first[starts], wanted[starts])
    assert float(first.detach().abs().sum()) == pytest.approx(float(first.detach()[starts].abs().sum()))


@pytest.mark.parametrize("dropout", [0.25])
def test_dropout_of_attention_is_that_of_the_padded_model(dropout: float) -> None:
    """Weights are dropped at the rate that is asked for, and the rest makes up for them."""
    torch.manual_seed(0)
    layout = Layout.of((40,) * 50, torch.arange(50) * 40)
    query, key = torch.randn(2000, 1, 8), torch.randn(2000, 1, 8)
    # With an identity for values, the output is the row of weights.
    value = torch.eye(40).repeat(50, 1).unsqueeze(1)
    kept = attention._by_length(query, key, value, layout, 0.0, None, False)
    dropped = attention._by_length(query, key, value, layout, dropout, None, False)
    zero = dropped == 0
    assert float(zero.float().mean()) == pytest.approx(dropout, abs=0.01)
    torch.testing.assert_close(dropped[~zero], kept[~zero] / (1 - dropout))


@pytest.mark.parametrize(
    ("config", "packs"),
    [
        (transformers.ElectraConfig(embedding_size=32), True),
        (transformers.XLMRobertaConfig(pad_token_id=0), True),
        (transformers.CamembertConfig(pad_token_id=0), True),
        # Its layers are one layer, computed again and again.
        (transformers.AlbertConfig(embedding_size=32, num_hidden_groups=1), False),
        # Attention of its own, by the distance of words.
        (transformers.DebertaV2Config(relative_attention=True, pooler_hidden_size=32), False),
        # Attention to neighbours alone in some layers.
        (transformers.ModernBertConfig(pad_token_id=0), False),
    ],
    ids=lambda each: each.model_type if isinstance(each, transformers.PretrainedConfig) else "",
)
def test_what_cannot_be_packed_is_padded_in_groups_of_one_length(
    tmp_path: Path,
    tiny_models: Models,
    reviews: Any,
    caplog: pytest.LogCaptureFixture,
    config: transformers.PretrainedConfig,
    packs: bool,
) -> None:
    task = Task.TEXT_CLASSIFICATION
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config.update({**sizes, "vocab_size": 600, "max_position_embeddings": 64, "num_labels": 2})
    torch.manual_seed(0)
    model = without_dropout(transformers.AutoModelForSequenceClassification.from_config(config))
    data = data_of(tiny_models("bert"), task, reviews[:60], held_out=20)
    with caplog.at_level(logging.INFO, "luthier_trainer"):
        tuner = tuner_of(tmp_path, model, data, spec_of(task))
    assert (tuner.forward.packing is not None) == packs
    assert ("cannot be packed" in caplog.text) != packs
    loss, found = step_of(tuner)
    model.zero_grad()
    wanted_loss, wanted = padded_step(model, tuner)
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    assert_same(found, wanted)


@pytest.mark.parametrize("task", [Task.TEXT_CLASSIFICATION, Task.TOKEN_CLASSIFICATION])
@pytest.mark.parametrize(
    "fields",
    [
        {"batchSize": 5, "gradientAccumulationSteps": 4},
        {"batchSize": 1, "gradientAccumulationSteps": 20},
        {"batchSize": "auto", "globalBatchSize": 20},
        {"batchSize": 20, "gradientCheckpointing": True},
        {"batchSize": 10, "gradientAccumulationSteps": 2, "padding": "max-length"},
    ],
    ids=str,
)
def test_a_step_is_the_same_in_however_many_pieces(
    tmp_path: Path, tiny_models: Models, reviews: Any, task: Task, fields: dict[str, Any]
) -> None:
    folder = tiny_models("bert")
    data = data_of(folder, task, reviews[:60], held_out=20)

    def made(**given: Any) -> FineTuner:
        return tuner_of(tmp_path, without_dropout(model_of(folder, task)), data, spec_of(task, **given))

    tuner = made(**fields)
    share = first_share(tuner)
    assert len(share) == fields.get("gradientAccumulationSteps", 1)
    assert all(each.input_ids.shape[1] == 32 for each in share) == ("padding" in fields)
    loss, found = step_of(tuner)
    wanted_loss, wanted = step_of(made(batchSize=20))
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    assert_same(found, wanted)


@pytest.mark.parametrize(("world", "batch"), [(2, 16), (3, 16), (5, 3)])
def test_the_ranks_gradients_add_up_to_that_of_the_global_batch(
    tmp_path: Path, tiny_models: Models, reviews: Any, world: int, batch: int
) -> None:
    """Ranks without a text of their own too."""
    folder, task = tiny_models("roberta"), Task.TOKEN_CLASSIFICATION
    data = data_of(folder, task, reviews[:60], held_out=20)
    tuner = tuner_of(tmp_path, without_dropout(model_of(folder, task)), data, spec_of(task, batchSize=batch))
    loss, wanted = step_of(tuner)
    assert isinstance(tuner.model, nn.Module)
    tuner.model.zero_grad()
    schedule = Schedule(data.train.lengths, batch, 42)
    shares = [
        StepShares(tuner._shares.collator, schedule, BatchLimits(4, 10**6), rank, world)[0] for rank in range(world)
    ]
    losses = [float(tuner.training_step(tuner.model, share)) for share in shares]
    assert sum(losses) == pytest.approx(loss, abs=1e-5)
    assert_same(gradients(tuner.model), wanted)


class Gambler(transformers.TrainerCallback):
    """Uses up random numbers between steps, as who saves, evaluates or resumes may do."""

    def on_step_end(self, *_: Any, **kwargs: Any) -> None:
        torch.rand(3)


def trained(
    tmp_path: Path, folder: Path, data: Any, *callbacks: transformers.TrainerCallback, **fields: Any
) -> dict[str, torch.Tensor]:
    task = Task.TEXT_CLASSIFICATION
    tuner = tuner_of(tmp_path, model_of(folder, task), data, spec_of(task, **fields), *callbacks)
    tuner.train()
    assert isinstance(tuner.model, nn.Module)
    return {name: weight.clone() for name, weight in tuner.model.state_dict().items()}


def test_the_same_seed_gives_the_same_weights_to_the_bit(tmp_path: Path, tiny_models: Models, reviews: Any) -> None:
    folder = tiny_models("bert")
    data = data_of(folder, Task.TEXT_CLASSIFICATION, reviews[:80], held_out=20)
    # An evaluation more or less changes nothing: dropout is a matter of the step.
    first = trained(tmp_path / "a", folder, data, Gambler(), evalSteps=1)
    second = trained(tmp_path / "b", folder, data)
    other = trained(tmp_path / "c", folder, data, seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_predictions_are_those_of_each_text_alone_in_their_order(
    tmp_path: Path, tiny_models: Models, reviews: Any
) -> None:
    for task in (Task.TEXT_CLASSIFICATION, Task.TOKEN_CLASSIFICATION):
        folder = tiny_models("roberta")
        data = data_of(folder, task, reviews[:70], held_out=50)
        tuner = tuner_of(tmp_path, model_of(folder, task), data, spec_of(task, evalBatchSize=7))
        found = tuner.predictions(data.held_out)
        plain, wanted, targets = model_of(folder, task).eval(), [], []
        with torch.no_grad():
            for index in range(len(data.held_out)):
                ids = torch.tensor(data.held_out.input_ids(index)[None].astype(np.int64))
                logits, target = plain(input_ids=ids).logits[0], data.held_out.target(index)
                judged = [n for n, each in enumerate(target) if each != -100] if tuner._task.per_token else None
                wanted += [logits[judged] if judged is not None else logits[None]]
                targets += [target[n] for n in judged] if judged is not None else [target]
        np.testing.assert_allclose(found.logits, torch.cat(wanted).numpy(), atol=1e-5)
        assert found.targets.tolist() == targets
        assert found.rows_per_text.tolist() == [len(each) for each in wanted]
        expected = functional.cross_entropy(torch.cat(wanted), torch.tensor(targets))
        assert found.loss == pytest.approx(float(expected), abs=1e-5)
