"""LoRA adapters over the model of the torch engine: their updates by peft, and a head for each.

    base weights ── + updates of one adapter, or none ── head of that adapter, or the model's own

One adapter is active at a time. The model itself is not changed: a version of method LoRA holds the sum of its base
model and its own updates, so an adapter that was learned beside the same base model is the difference of two updates.
All of it runs on the thread that computes. Beside `torch_engine` the only module that imports torch.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from peft import (
    LoraConfig,
    LoraModel,
    PeftConfig,
    PeftModel,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from luthier_api.artifact_files import ADAPTER_WEIGHTS_FILE
from luthier_api.reasons import Reason
from luthier_serving.errors import LoadError

_PREFIX = "base_model.model."
# peft refuses names that are part of its own prefix, such as "lora".
_NAME = "adapter-{}"

logger = logging.getLogger("ray.serve")
Weights = dict[str, torch.Tensor]


class AdapterBank:
    """The adapters of one model.

    Args:
        model: on its device, in evaluation mode.
    """

    def __init__(self, model: PreTrainedModel):
        self._model = model
        self._peft: PeftModel | None = None
        self._heads: dict[str, dict[str, nn.Module]] = {}
        self._original: dict[str, nn.Module] = {}
        self._active: str | None = None

    def add(self, name: str, folder: Path, without: Path | None) -> None:
        """Add an adapter.

        Args:
            name: another than any that is there.
            folder: its files, as peft writes them.
            without: the updates that the model's weights already contain, which this adapter's replace.

        Raises:
            LoadError: the files are damaged, or do not fit the model.
        """
        self.select(None)
        before = set(self._names)
        try:
            saved = _read(folder)
            heads = self._heads_of(saved)
            if without is None:
                self._inject(_NAME.format(name), saved)
            else:
                self._inject_difference(_NAME.format(name), saved, _read(without))
        except BaseException:
            for partial in set(self._names) - before:
                self._delete(partial)
            raise
        finally:
            self._disable()
        self._heads[name] = heads

    def remove(self, name: str) -> None:
        """Free an adapter."""
        self.select(None)
        del self._heads[name]
        self._delete(_NAME.format(name))
        self._disable()

    def select(self, name: str | None) -> None:
        """Compute with this adapter from now on; None: with the model as it is."""
        if name == self._active:
            return
        heads = self._heads[name] if name else {}
        if name:
            self._tuner.enable_adapter_layers()
            self._tuner.set_adapter(_NAME.format(name))
        for path, module in {**self._original, **heads}.items():
            self._model.set_submodule(path, module)
        if name is None:
            self._disable()
        self._active = name

    @property
    def _names(self) -> list[str]:
        return list(self._peft.peft_config) if self._peft is not None else []

    @property
    def _tuner(self) -> LoraModel:
        assert self._peft is not None
        tuner = self._peft.base_model
        assert isinstance(tuner, LoraModel)
        return tuner

    def _disable(self) -> None:
        if self._peft is not None:
            self._tuner.disable_adapter_layers()

    def _delete(self, name: str) -> None:
        assert self._peft is not None
        with _quiet():
            self._peft.delete_adapter(name)

    def _inject_difference(self, name: str, saved: "_Saved", without: "_Saved") -> None:
        """Add the updates of one minus those of the other, in one adapter of both ranks together."""
        parts = [f"{name}-with", f"{name}-without"]
        for part, each in zip(parts, (saved, without), strict=True):
            self._inject(part, each)
        with _quiet():
            self._tuner.add_weighted_adapter(parts, [1.0, -1.0], name, combination_type="cat")
        self._model.eval()  # type: ignore[no-untyped-call]
        for part in parts:
            self._delete(part)

    def _inject(self, name: str, saved: "_Saved") -> None:
        with _quiet():
            if self._peft is None:
                config = copy.deepcopy(saved.config)
                self._peft = PeftModel(self._model, config, adapter_name=name, autocast_adapter_dtype=False)
            else:
                self._peft.add_adapter(name, copy.deepcopy(saved.config), autocast_adapter_dtype=False)
        expected = get_peft_model_state_dict(self._peft, adapter_name=name, save_embedding_layers=False)
        strange = sorted(set(expected) ^ set(saved.updates)) or sorted(
            key for key, weight in saved.updates.items() if weight.shape != expected[key].shape
        )
        if strange:
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The adapter does not fit the model: the first weight that differs is {strange[0]}.",
            )
        set_peft_model_state_dict(self._peft, saved.updates, adapter_name=name)
        # New layers begin in training mode, with dropout.
        self._model.eval()  # type: ignore[no-untyped-call]

    def _heads_of(self, saved: "_Saved") -> dict[str, nn.Module]:
        """Return {path in the model: module} of an adapter's own head, which may have other labels than the model's."""
        heads: dict[str, nn.Module] = {}
        names = saved.config_modules
        for key, weight in saved.head.items():
            name = next((each for each in names if key.startswith(f"{each}.")), None)
            try:
                if name is None:
                    raise AttributeError(f"no module of {', '.join(names) or 'a head'} has it")
                if name not in heads:
                    heads[name] = copy.deepcopy(self._original.setdefault(name, self._model.get_submodule(name)))
                _set_weight(heads[name], key.removeprefix(f"{name}."), weight)
            except AttributeError as error:
                raise LoadError(
                    Reason.INVALID_MODEL, f"The adapter's head has {key}, for which the model has no place: {error}."
                ) from error
        return {name: head.eval() for name, head in heads.items()}


class _Saved(NamedTuple):
    """An adapter's files.

    Attributes:
        config: of its updates alone.
        updates: their weights.
        config_modules: paths of the modules that make up the head.
        head: the head's weights, by their path in the model.
    """

    config: LoraConfig
    updates: Weights
    config_modules: list[str]
    head: Weights


def _read(folder: Path) -> _Saved:
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / ADAPTER_WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError, json.JSONDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(Reason.INVALID_MODEL, f"The adapter's files cannot be read: {reason}") from error
    if not isinstance(config, LoraConfig):
        raise LoadError(Reason.INVALID_MODEL, f"The adapter is of type {config.peft_type}; the server computes LoRA.")
    modules = list(config.modules_to_save or [])
    config.modules_to_save, config.inference_mode, config.base_model_name_or_path = None, True, None
    updates = {key: weight for key, weight in weights.items() if ".lora_" in key}
    head = {key.removeprefix(_PREFIX): weight for key, weight in weights.items() if key not in updates}
    return _Saved(config, updates, modules, head)


def _set_weight(module: nn.Module, path: str, weight: torch.Tensor) -> None:
    """Put a weight where the module has one, of whatever shape.

    Raises:
        AttributeError: the module has none there.
    """
    parent_path, _, leaf = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    old = parent.get_parameter(leaf)
    new = nn.Parameter(weight.to(device=old.device, dtype=old.dtype), requires_grad=False)
    parent.register_parameter(leaf, new)
    if isinstance(parent, nn.Linear) and leaf == "weight":
        parent.out_features, parent.in_features = weight.shape


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft asks transformers for an attribute by the name that it had until 5.20.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # Another adapter is chosen before anything is computed.
        warnings.filterwarnings("ignore", ".*was active which is now deleted.*", UserWarning)
        yield
