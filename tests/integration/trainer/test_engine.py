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
from engine import data_of, model_of, spec_of, tuner_of
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from luthier_api.training import Task
from luthier_trainer import attention
from luthier_trainer.attention import Layout
from luthier_trainer.batches import Limits, Schedule
from luthier_trainer.callbacks import Watcher
from luthier_trainer.errors import GpuOutOfMemory
from luthier_trainer.finetuner import FineTuner
from luthier_trainer.loading import MicroBatch, Shares
from luthier_trainer.losses import Loss, balanced_weights, positive_weights
from luthier_trainer.memory import largest_that_fits
from luthier_trainer.progress import Progress

pytestmark = pytest.mark.integration

Models = Callable[[str], Path]
ARCHITECTURES = ("bert", "roberta", "distilbert")


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def first_share(tuner: FineTuner) -> list[MicroBatch]:
    share: list[MicroBatch] = next(iter(tuner.get_train_dataloader()))
    return share


def step_of(tuner: FineTuner) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of the first optimizer step."""
    assert isinstance(tuner.model, nn.Module)
    loss = float(tuner.training_step(tuner.model, first_share(tuner)))
    return loss, gradients(tuner.model)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(
            found[name], wanted[name], atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n} {text}"
        )


def padded_step(model: PreTrainedModel, tuner: FineTuner) -> tuple[float, dict[str, torch.Tensor]]:
    """The same step as plain transformers computes it: one padded batch, the model's own loss."""
    (packed,) = first_share(tuner)
    task, part = tuner._task, tuner._train.part
    width = max(packed.lengths)

    def padded(values: list[Any], filler: int) -> torch.Tensor:
        return torch.tensor([[*each, *[filler] * (width - len(each))] for each in values])

    indices = [int(index) for index in packed.indices]
    ids = [part.input_ids(index).tolist() for index in indices]
    batch = {"input_ids": padded(ids, 0), "attention_mask": padded([[1] * len(each) for each in ids], 0)}
    if getattr(model.config, "type_vocab_size", 0) > 1 and part.second_start(indices[0]):
        starts = [part.second_start(index) for index in indices]
        kinds = [[int(n >= start) for n in range(len(each))] for each, start in zip(ids, starts, strict=True)]
        batch["token_type_ids"] = padded(kinds, 0)
    labels = (
        padded([part.target(index) for index in indices], -100)
        if task.per_token
        else torch.tensor(task.dense_targets(part, model.config.num_labels)[indices])
    )
    labels = labels.long() if task.loss == "cross-entropy" else labels.float()
    loss = model.train()(**batch, labels=labels).loss
    loss.backward()
    return float(loss.detach()), gradients(model)


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_steps_are_those_of_padded_batches(
    tmp_path: Path, tiny_models: Models, reviews: Any, architecture: str, task: Task
) -> None:
    folder = tiny_models(architecture)
    data = data_of(folder, task, reviews[:60], held_out=20, pairs=task is not Task.TOKEN_CLASSIFICATION)
    tuner = tuner_of(tmp_path, without_dropout(model_of(folder, task)), data, spec_of(task))
    (batch,) = first_share(tuner)
    assert batch.packed and batch.input_ids.shape == (1, batch.tokens), "no padding"
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
    assert (tuner._packing is not None) == packs
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
    shares = [Shares(tuner._train, schedule, Limits(4, 10**6), rank, world)[0] for rank in range(world)]
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


def out_of_memory_beyond(tuner: FineTuner, monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """Let the forward pass fail as it does on a GPU; returns the tokens of each try, which grows."""
    compute, tries = tuner._logits, []

    def limited(model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        tries.append(batch.tokens)
        if batch.tokens > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(model, batch)

    monkeypatch.setattr(tuner, "_logits", limited)
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
    limits = tuner.fitting_limits()
    assert tries == [int(longest[:count].sum()) for count in (1, 2, 4, 8, 16, 32)]
    assert limits.tokens == int(longest[:16].sum() * 0.9)
    assert isinstance(tuner.model, nn.Module) and not gradients(tuner.model)
    out_of_memory_beyond(tuner, monkeypatch, 1)
    with pytest.raises(GpuOutOfMemory, match="no memory to train on one text of 32 tokens"):
        tuner.fitting_limits()


@pytest.mark.parametrize(("most", "limit", "found"), [(64, 10, 8), (20, 100, 20), (1, 1, 1), (9, 9, 9), (8, 0, 0)])
def test_sizes_are_doubled_until_one_does_not_fit(most: int, limit: int, found: int) -> None:
    def try_out(size: int) -> None:
        assert size <= most
        if size > limit:
            raise torch.OutOfMemoryError

    assert largest_that_fits(try_out, most) == found


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
