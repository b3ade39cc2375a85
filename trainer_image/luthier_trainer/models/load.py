"""Builds the model that is trained: the base model's encoder with the task's head. Needs torch.

Which of its weights are trained is `methods`' business.
"""

import copy
from typing import Any

import torch
import transformers
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedModel

from luthier_api.training import Label
from luthier_trainer.models.base_model import BaseModel
from luthier_trainer.models.head_rows import head_labels, rows_of
from luthier_trainer.runtime.errors import InvalidModel
from luthier_trainer.tasks.interface import TaskModule


def load_model(
    base: BaseModel, uri: str, task: TaskModule, labels: list[Label], *, quantization: BitsAndBytesConfig | None = None
) -> PreTrainedModel:
    """Load the base model with a head for the labels, new unless the base model has one of the same labels.

    Args:
        base: a model that passed.
        uri: where it came from, for messages.
        task: knows the class.
        labels: names of the outputs.
        quantization: how the encoder's weights are held on the GPU; None: in fp32, on the CPU, as the head always is.

    Raises:
        InvalidModel: if the weights are not those of the architecture that config.json names.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    auto_class = getattr(transformers, task.auto_class)
    extra: dict[str, Any] = {"problem_type": task.problem_type} if task.problem_type else {}
    try:
        if quantization:
            extra |= _quantized(auto_class, base, quantization)
        model: PreTrainedModel
        model, report = auto_class.from_pretrained(
            base.folder,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            # A head of another size is replaced by a new one; see below for what is not a head.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **extra,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidModel(f"The base model {uri} cannot be loaded: {reason}") from error
    if lost := encoder_keys_without_weights(model.base_model_prefix, report):
        raise InvalidModel(
            f"The base model {uri} has no fitting weights for {len(lost)} tensors of its encoder, the first being "
            f"{lost[0]}; config.json and model.safetensors belong to different models."
        )
    _settle_head(model, base, task, labels, report)
    model.config.pad_token_id = base.pad_token_id
    return model


def _settle_head(
    model: PreTrainedModel, base: BaseModel, task: TaskModule, labels: list[Label], report: dict[str, Any]
) -> None:
    """Put the rows of a head that was loaded into the labels' order, or make it anew where it has other labels."""
    found = head_labels(base, task.auto_class)
    if not found or (task.loss == "mean-squared-error" and len(found) == 1):
        return
    name, output = _output_layer(model, len(labels))
    if {f"{name}.weight"} & set(_keys(report)):
        return
    rows = rows_of(labels, found)
    with torch.no_grad():
        for key, weight in output.named_parameters():
            if rows is not None:
                weight.copy_(weight[rows].clone())
            elif key == "bias":
                weight.zero_()
            else:
                weight.normal_(std=getattr(model.config, "initializer_range", None) or 0.02)


def _output_layer(model: PreTrainedModel, outputs: int) -> tuple[str, torch.nn.Linear]:
    """Return the last layer of the head, and its name."""
    encoder = f"{model.base_model_prefix}."
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == outputs and not name.startswith(encoder)
    ]
    if not layers:
        raise InvalidModel(
            f"The head of a {model.config.model_type} model is not known, so the labels of its outputs cannot be told; "
            "give a base model without a head."
        )
    return layers[-1]


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that make up the head, such as bert.pooler and classifier.

    The head is all that is not the encoder, and the encoder's pooler: models that were pretrained without one get a
    new one.
    """
    prefix = model.base_model_prefix
    head = [
        name for name, module in model.named_children() if name != prefix and any(True for _ in module.parameters())
    ]
    pooler = getattr(model.base_model, "pooler", None)
    return [f"{prefix}.pooler", *head] if isinstance(pooler, torch.nn.Module) else head


def _quantized(auto_class: Any, base: BaseModel, quantization: BitsAndBytesConfig) -> dict[str, Any]:
    """Return the arguments of from_pretrained that quantize the encoder but not the head, which is trained."""
    with torch.device("meta"):
        empty = auto_class.from_config(AutoConfig.from_pretrained(base.folder, local_files_only=True))
    settings = copy.copy(quantization)
    settings.llm_int8_skip_modules = head_modules(empty)
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}}


def encoder_keys_without_weights(prefix: str, report: dict[str, Any]) -> list[str]:
    """Return the encoder's tensors that the file lacks or has in another shape, the pooler's aside."""
    return sorted(key for key in _keys(report) if key.startswith(f"{prefix}.") and ".pooler." not in key)


def _keys(report: dict[str, Any]) -> list[str]:
    """Return the tensors that the file lacks or has in another shape."""
    mismatched = [str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"]]
    return [*(str(key) for key in report["missing_keys"]), *mismatched]
