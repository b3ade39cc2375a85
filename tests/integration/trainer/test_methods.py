"""Methods: which weights change, what the artifact holds, and that an adapter goes with its own base model only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from luthier_api.exitcodes import ExitCode
from luthier_api.training import Lora, Method
from luthier_trainer.cli import main
from luthier_trainer.models.adapters import merge_folders
from luthier_trainer.models.methods import adapt, count_parameters, release, target_modules
from luthier_trainer.runtime.errors import InvalidModel, InvalidSpec
from support.trainer.methods import (
    ARCHITECTURES,
    LABELS,
    MethodBench,
    Models,
    classifier,
    logits,
    with_adapter,
    with_larger_weights,
)

pytestmark = pytest.mark.integration

HIDDEN, INNER = 32, 64


@pytest.fixture(scope="module")
def bases(tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return with_larger_weights(tiny_models, tmp_path_factory.getbasetemp())


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> MethodBench:
    return MethodBench(tmp_path, capsys)


@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_trains_updates_of_attention_and_feed_forward_and_the_head_alone(
    tiny_models: Models, architecture: str, auto_class: Any
) -> None:
    model = adapt(classifier(tiny_models(architecture), auto_class), Method(type="LoRA", lora=Lora(r=4)))
    per_layer = 4 * (HIDDEN + HIDDEN) + (HIDDEN + INNER) + (INNER + HIDDEN)
    head = HIDDEN * LABELS + LABELS
    # Tasks per text have a dense layer before the last one, by whatever name: bert.pooler, pre_classifier, dense.
    head += HIDDEN * HIDDEN + HIDDEN if auto_class is AutoModelForSequenceClassification else 0
    assert count_parameters(model)[0] == 2 * 4 * per_layer + head
    assert isinstance(model, PeftModel)
    encoder = model.get_base_model().base_model
    outside_head = [n for n, weight in encoder.named_parameters() if weight.requires_grad and "pooler" not in n]
    assert outside_head and all("lora_" in name for name in outside_head)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapted_model_says_what_the_model_said_before_it_is_trained(tiny_models: Models, architecture: str) -> None:
    plain = logits(classifier(tiny_models(architecture)))
    adapted = adapt(classifier(tiny_models(architecture)), Method(type="LoRA"))
    assert torch.equal(logits(adapted), plain)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qeury", r"'qeury', which the base model does not have\. The closest are: query\."),
        ("classifier", r"'classifier', which stands for classifier: no linear layer of the encoder"),
        ("LayerNorm", r"'LayerNorm', which stands for bert\.embeddings\.LayerNorm: no linear layer"),
    ],
)
def test_a_module_that_cannot_be_adapted_is_refused_by_name(tiny_models: Models, name: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        target_modules(classifier(tiny_models("bert")), ["query", name])


def gpt2() -> Any:
    sizes = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0, "num_labels": LABELS}
    return GPT2ForSequenceClassification(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1))


def test_layers_that_hold_their_weights_the_other_way_round_are_adapted_and_merged() -> None:
    model = gpt2()
    assert target_modules(model, None) == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    ids = torch.tensor([[5, 6, 7]])
    before = model.eval()(input_ids=ids).logits
    adapted = adapt(model, Method(type="LoRA", lora=Lora(r=2)))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(generator=torch.Generator().manual_seed(0))
    found = adapted.eval()(input_ids=ids).logits
    assert not torch.allclose(found, before, atol=1e-3)
    assert torch.allclose(adapted.merge_and_unload()(input_ids=ids).logits, found, atol=1e-5)


@pytest.mark.parametrize("name", ["c_atn", "wte", "score", "ln_1", "dens"])
@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_what_is_proposed_instead_of_a_module_is_accepted(tiny_models: Models, family: str, name: str) -> None:
    model = gpt2() if family == "gpt2" else classifier(tiny_models("bert"))
    with pytest.raises(InvalidSpec) as refused:
        target_modules(model, [name])
    _, _, proposed = str(refused.value).rstrip(".").rpartition(": ")
    target_modules(model, proposed.split(", "))


def test_named_modules_alone_are_adapted(tiny_models: Models) -> None:
    method = Method(type="LoRA", lora=Lora(r=2, target_modules=["query", "attention.self.value"]))
    model = adapt(classifier(tiny_models("bert")), method)
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert {name.rsplit(".", 1)[1] for name in adapted} == {"query", "value"}
    assert len(adapted) == 2 * 2


def test_a_frozen_encoder_has_no_dropout_while_the_head_has(tiny_models: Models) -> None:
    model = adapt(classifier(tiny_models("bert")), Method(type="Frozen"))
    model.train()
    assert not any(module.training for module in model.base_model.modules())
    assert model.get_submodule("dropout").training
    release(model)  # type: ignore[arg-type]
    model.train()
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_publishes_an_adapter_and_a_plain_model_that_says_the_same(
    bench: MethodBench, bases: Models, architecture: str, tmp_path: Path
) -> None:
    base = bases(architecture)
    folder, metrics = bench.artifact(base, {"type": "LoRA", "lora": {"r": 8, "alpha": 16}})
    assert metrics["eval_loss"] < metrics["untrained_loss"] - 0.1
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    assert not [name for name in plain.state_dict() if "lora" in name]
    adapted = with_adapter(base, folder)
    assert torch.allclose(logits(adapted), logits(plain), atol=1e-5, rtol=0)
    assert not torch.allclose(logits(classifier(base)), logits(plain), atol=1e-2)
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (8, 16, base.as_uri())

    merge_folders(folder, base, tmp_path / "merged")
    published, again = load_file(folder / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    assert published.keys() == again.keys()
    assert all(torch.equal(published[name], again[name]) for name in published)


def test_lora_trains_the_same_when_activations_are_computed_again(bench: MethodBench, bases: Models) -> None:
    method = {"type": "LoRA", "lora": {"dropout": "0"}}
    kept, again = (
        bench.artifact(bases("bert"), method, gradientCheckpointing=checkpointing)[0] for checkpointing in (False, True)
    )
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (kept, again))
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_merging_takes_the_adapters_own_base_model_only(
    bench: MethodBench, bases: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(bases("bert"), tmp_path / "base")
    folder, _ = bench.artifact(base, {"type": "LoRA"}, epochs=1)
    out = tmp_path / "merged"
    assert main(["merge", str(folder), str(base), str(out)]) == ExitCode.OK
    assert torch.equal(
        logits(AutoModelForSequenceClassification.from_pretrained(out)),
        logits(AutoModelForSequenceClassification.from_pretrained(folder)),
    )
    assert {"tokenizer.json", "luthier.json"} <= {path.name for path in out.iterdir()}

    # One weight of another value, in a file of the same size.
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    capsys.readouterr()
    assert main(["merge", str(folder), str(base), str(tmp_path / "other")]) == ExitCode.INVALID_MODEL
    assert "is not the base model of this adapter" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), r"cannot be read \(No such file or directory\); give the artifact of"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 40), r"cannot be read .*; download"),
        (lambda folder: (folder / "luthier-adapter.json").write_text("{}"), r"does not say what the adapter is for"),
        (
            lambda folder: (folder / "adapter_config.json").write_text(
                (folder / "adapter_config.json").read_text().replace('"r": 16', '"r": 4')
            ),
            r"does not fit its base model, the first weight that differs being base_model",
        ),
    ],
)
def test_a_damaged_adapter_is_refused(
    bench: MethodBench, bases: Models, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder, _ = bench.artifact(bases("bert"), {"type": "LoRA"}, epochs=1)
    damage(folder / "adapter")
    with pytest.raises(InvalidModel, match=message):
        merge_folders(folder, bases("bert"), tmp_path / "merged")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_frozen_encoder_is_published_as_it_was(bench: MethodBench, bases: Models, architecture: str) -> None:
    base = bases(architecture)
    folder, metrics = bench.artifact(base, {"type": "Frozen"})
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    encoder = {name: weight for name, weight in before.items() if "pooler" not in name}
    assert encoder
    assert all(torch.equal(after[f"{architecture}.{name}"], weight) for name, weight in encoder.items())
    assert metrics["eval_loss"] < metrics["untrained_loss"] - 0.02
    assert not (folder / "adapter").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_qlora_without_a_gpu_is_refused_in_one_sentence(bench: MethodBench, bases: Models) -> None:
    code, result, _ = bench.run(bases("bert"), {"type": "QLoRA"})
    assert code == ExitCode.INVALID_SPEC
    assert result.failure and "QLoRA" in result.failure.message and "GPU" in result.failure.message
