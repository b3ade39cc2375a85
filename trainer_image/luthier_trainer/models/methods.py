"""Which weights are trained: all, low-rank updates beside frozen ones, or the head alone. Needs torch and peft.

    load_model(..., quantization(method)) -> adapt -> training -> release, or adapters.merged -> a plain model

| method | encoder | head |
| Full | trained | trained |
| LoRA | frozen; every linear layer of its repeated layers gets an update of rank r | trained |
| QLoRA | the same, frozen in 4 bits | trained |
| Frozen | frozen and without dropout, so that a text's features are always the same | trained |

The head is all that is not the encoder, and the encoder's pooler where there is one: models that were pretrained
without one get a new one, which must be learned. Learning rates are the spec's, whatever the method.
"""

import copy
import difflib
import re
import warnings
from collections.abc import Iterable
from importlib.util import find_spec

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier_api.training import Lora, Method, MethodType, Precision
from luthier_trainer.models.load import head_modules
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.precision import Device

# As in QLoRA (Dettmers et al., 2023, arXiv:2305.14314): 4-bit NormalFloat, with its scales quantized again.
_FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
_COMPUTE = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
_SUGGESTIONS = 3
_LINEAR = (nn.Linear, Conv1D)

Trainable = PreTrainedModel | PeftModel


def quantization(method: Method, device: Device, precision: Precision) -> BitsAndBytesConfig | None:
    """Return how the base model's weights are held while training, None as they are.

    Raises:
        InvalidSpec: if the method needs what is not there.
    """
    if method.type is not MethodType.QLORA:
        return None
    if not device.is_gpu:
        raise InvalidSpec("method QLoRA needs an NVIDIA GPU and there is none; set gpusPerNode: 1 or use type LoRA.")
    if find_spec("bitsandbytes") is None:
        raise InvalidSpec(
            "method QLoRA needs the package bitsandbytes, which is not installed; use an image that is built with "
            'EXTRAS="train qlora", or type LoRA.'
        )
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        **_FOUR_BITS, bnb_4bit_compute_dtype=_COMPUTE[precision]
    )


def adapt(model: PreTrainedModel, method: Method) -> Trainable:
    """Make the weights that the method trains the only ones that are trained.

    Raises:
        InvalidSpec: if lora.targetModules names what the model does not have.
    """
    match method.type:
        case MethodType.FULL:
            return model
        case MethodType.FROZEN:
            return _freeze(model)
        case MethodType.QLORA:
            # Gradient checkpointing is the Trainer's; here only what 4 bits need: fp32 normalization and head.
            model = prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
                model, use_gradient_checkpointing=False
            )
    return with_adapters(model, lora_config(model, method.lora or Lora()))


def with_adapters(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """Put new updates beside the weights that the settings name; they change nothing until they are trained."""
    config = copy.deepcopy(config)
    # peft warns where the folder has another name than the one that the adapter was trained on.
    config.base_model_name_or_path = None
    with warnings.catch_warnings():
        # peft asks transformers for an attribute by the name that it had until 5.20.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def lora_config(model: PreTrainedModel, lora: Lora) -> LoraConfig:
    """Return peft's form of the settings, for one model.

    Raises:
        InvalidSpec: if targetModules names what the model does not have.
    """
    names = target_modules(model, lora.target_modules)
    targets = [module for name, module in model.named_modules() if any(_ending([name], each) for each in names)]
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=float(lora.dropout),
        target_modules=names,
        # GPT-2's layers hold their weights the other way round.
        fan_in_fan_out=all(isinstance(module, Conv1D) for module in targets),
        modules_to_save=head_modules(model),
        bias="none",
    )


def target_modules(model: PreTrainedModel, given: list[str] | None) -> list[str]:
    """Return the linear layers that get an update, each name standing for all modules whose names end so.

    Args:
        model: the model with its head.
        given: names that the user chose. None: every linear layer of the encoder's repeated layers, that is of
            attention and feed-forward: the choice that makes LoRA as good as training all weights (Dettmers et al.,
            2023, section 4; attention alone does not).

    Raises:
        InvalidSpec: if a name stands for nothing, or for something other than linear layers of the encoder.
    """
    known = _encoder_linears(model)
    modules = [name for name, _ in model.named_modules()]
    if not known:
        raise InvalidSpec(
            f"A {model.config.model_type} model has no linear layers that LoRA can adapt; use method Full or Frozen."
        )
    if given is None:
        found = sorted({name for each in known if (name := _within_layer(each))})
        if not found:
            raise InvalidSpec(
                f"No linear layers were found in the layers of a {model.config.model_type} model; name those to adapt "
                f"in method.lora.targetModules, or use method Full. {_advice(known, modules, '')}"
            )
        return found
    for name in given:
        if strange := [each for each in _ending(modules, name) if each not in known]:
            raise InvalidSpec(
                f"method.lora.targetModules names {name!r}, which stands for {strange[0]}: no linear layer of the "
                f"encoder. {_advice(known, modules, name)}"
            )
        if not _ending(known, name):
            raise InvalidSpec(
                f"method.lora.targetModules names {name!r}, which the base model does not have. "
                f"{_advice(known, modules, name)}"
            )
    return sorted(given)


def release(model: PreTrainedModel) -> PreTrainedModel:
    """Undo what `adapt` did to a model without updates: one like any other, in evaluation mode."""
    vars(model.base_model).pop("train", None)
    model.requires_grad_(True)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many weights are trained, and how many there are."""
    counts = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(count for count, trained in counts if trained), sum(count for count, _ in counts)


def _freeze(model: PreTrainedModel) -> PreTrainedModel:
    encoder, head = model.base_model, head_modules(model)
    model.requires_grad_(False)
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    encoder.eval()
    # The Trainer calls train() on the whole model before each step.
    vars(encoder)["train"] = _StayInEvaluation(encoder)
    return model


class _StayInEvaluation:
    """Stands in for a module's train(), and leaves it as it is."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self._module


def _encoder_linears(model: PreTrainedModel) -> list[str]:
    """Return full names of the encoder's linear layers, without the pooler's."""
    prefix = model.base_model_prefix
    names = [f"{prefix}.{name}" for name, each in model.base_model.named_modules() if isinstance(each, _LINEAR)]
    return [name for name in names if not name.startswith(f"{prefix}.pooler.")]


def _within_layer(name: str) -> str | None:
    """Return the part of a name after the number of a repeated layer: bert.encoder.layer.3.output.dense."""
    found = re.fullmatch(r".*\.\d+\.(.+)", name)
    return found[1] if found else None


def _ending(names: Iterable[str], end: str) -> list[str]:
    """Return the names that peft takes `end` for."""
    return [name for name in names if name == end or name.endswith(f".{end}")]


def _advice(known: list[str], modules: list[str], name: str) -> str:
    """Return names that may be given: those that stand for linear layers of the encoder and for nothing else."""
    within = sorted({_within_layer(each) or each for each in known})
    last = {each.rsplit(".", 1)[-1] for each in within}
    accepted = [each for each in sorted(last | set(within)) if set(_ending(modules, each)) <= set(known)]
    close = difflib.get_close_matches(name, accepted, _SUGGESTIONS)
    return f"The closest are: {', '.join(close)}." if close else f"It has: {', '.join(within)}."
