"""torch on GPU, or on CPU if the spec asks for it: loads `config.json` and `model.safetensors` of an artifact.

With `torch_adapters`, which it imports for the first adapter, the only module of the server that imports torch.
"""

import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from luthier_api.artifact_files import ADAPTER_FOLDER, ADAPTER_WEIGHTS_FILE, WEIGHTS_FILE
from luthier_api.reasons import Reason
from luthier_serving.compute.engines import Batch, Engine
from luthier_serving.errors import LoadError
from luthier_serving.tasks.interface import Logits

if TYPE_CHECKING:
    from luthier_serving.compute.engines.torch_adapters import AdapterBank

logger = logging.getLogger("ray.serve")


class TorchEngine:
    """A model in half precision on the GPU of this replica, or in single precision on CPU."""

    weights = WEIGHTS_FILE
    batch_invariant = True

    def __init__(self, folder: Path, *, per_token: bool, gpus: int, threads: int):
        if gpus and not torch.cuda.is_available():
            raise LoadError(
                Reason.INVALID_SPEC,
                "The replica has a GPU, but torch cannot use it; check the node's driver, and that the image's torch "
                "is built for CUDA.",
            )
        self._device = torch.device("cuda" if gpus else "cpu")
        self.pads = bool(gpus)
        torch.set_num_threads(threads)
        auto_class = AutoModelForTokenClassification if per_token else AutoModelForSequenceClassification
        try:
            self._model = auto_class.from_pretrained(str(folder), dtype=self._dtype(), local_files_only=True)
            self._model.to(self._device).eval()
        except torch.cuda.OutOfMemoryError as error:
            raise LoadError(
                Reason.GPU_OUT_OF_MEMORY, "The model does not fit into the GPU's memory; use a GPU with more memory."
            ) from error
        except Exception as error:  # safetensors and transformers raise many classes of their own
            raise LoadError(Reason.INVALID_MODEL, f"transformers cannot load the artifact: {error}") from error
        self._uses_token_types = _uses_token_types(self._model)
        self._adapters: AdapterBank | None = None
        logger.info("torch loaded %s on %s in %s", WEIGHTS_FILE, self._device, self._dtype())

    def attach(self, name: str, folder: Path, without: Path | None) -> Engine:
        """Return an engine that computes this model with an adapter.

        Args:
            name: another than that of any adapter that is attached.
            folder: the adapter's files, as peft writes them.
            without: the updates that the model's weights already contain, which this adapter's replace.

        Raises:
            LoadError: the adapter does not fit, or the image lacks peft.
        """
        if self._adapters is None:
            self._adapters = _open_bank(self._model)
        self._adapters.add(name, folder, without)
        return _WithAdapter(self, name)

    def detach(self, name: str) -> None:
        """Free an adapter."""
        assert self._adapters is not None
        self._adapters.remove(name)

    def logits(self, batch: Batch, adapter: str | None = None) -> Logits:
        """Return logits: [texts, labels], or [texts, tokens, labels] for a task per token."""
        if self._adapters is not None:
            self._adapters.select(adapter)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None and self._uses_token_types:
            inputs["token_type_ids"] = batch.token_type_ids
        with torch.inference_mode():
            output = self._model(**{name: torch.from_numpy(ids).to(self._device) for name, ids in inputs.items()})
            logits: Logits = output.logits.float().cpu().numpy().astype(np.float32, copy=False)
            return logits

    def _dtype(self) -> torch.dtype:
        if self._device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


class _WithAdapter:
    """The engine of a model with one of its adapters."""

    weights = f"{ADAPTER_FOLDER}/{ADAPTER_WEIGHTS_FILE}"
    batch_invariant = True

    def __init__(self, engine: TorchEngine, name: str):
        self._engine, self._name = engine, name
        self.pads = engine.pads

    def logits(self, batch: Batch) -> Logits:
        """Return logits: [texts, labels], or [texts, tokens, labels] for a task per token."""
        return self._engine.logits(batch, self._name)


def _open_bank(model: PreTrainedModel) -> "AdapterBank":
    try:
        from luthier_serving.compute.engines.torch_adapters import AdapterBank
    except ModuleNotFoundError as error:
        raise LoadError(
            Reason.INVALID_SPEC,
            f"Adapters need the package {error.name}, which this server image does not have; use an image of this "
            "release that is built with TORCH=1.",
        ) from None
    return AdapterBank(model)


def _uses_token_types(model: torch.nn.Module) -> bool:
    """Return whether the model distinguishes token types: DistilBERT accepts none, RoBERTa has only one."""
    accepts = "token_type_ids" in inspect.signature(model.forward).parameters
    return accepts and getattr(model.config, "type_vocab_size", 0) > 1
