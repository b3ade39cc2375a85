"""What computes a model, behind one interface.

An engine is given a padded batch of token ids and returns logits. Everything around that (cleaning, tokenization, the
batch plan, the meaning of logits) is the same for all engines and belongs to `model` and the modules that it calls.
`open_engine` selects one; an engine's library is imported only when it is selected, so that the CPU image needs no
torch.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from luthier_api.artifact_files import CONFIG_FILE, ONNX_FILES, REFERENCE_FILE, SERVING_DOCUMENT_FILE, TOKENIZER_FILE
from luthier_api.base import Engine as EngineName
from luthier_api.reasons import Reason
from luthier_serving.errors import LoadError
from luthier_serving.tasks.interface import Logits

Ids = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """The input of an engine, each of shape [texts, tokens]; token types only for a model that reads pairs."""

    input_ids: Ids
    attention_mask: Ids
    token_type_ids: Ids | None = None


class Engine(Protocol):
    """A loaded model.

    Attributes:
        weights: name of the file that it loaded.
        pads: whether texts of different lengths may share a batch at little cost, as on a GPU.
        batch_invariant: whether the logits of a text are independent of the other texts in its batch.
    """

    weights: str
    pads: bool
    batch_invariant: bool

    def logits(self, batch: Batch) -> Logits:
        """Return logits: [texts, labels], or [texts, tokens, labels] for a task per token."""


@runtime_checkable
class AdaptableEngine(Protocol):
    """An engine that computes its model with adapters too. Both are called by the thread that computes."""

    def attach(self, name: str, folder: Path, without: Path | None) -> Engine:
        """Return an engine that computes the model with an adapter; see `torch_engine`."""

    def detach(self, name: str) -> None:
        """Free an adapter."""


def select_engine(engine: EngineName, *, gpus: int) -> EngineName:
    """Return the engine itself, or what auto means: torch with a GPU, else ONNX Runtime."""
    if engine != "auto":
        return engine
    return "torch" if gpus else "onnxruntime"


def select_onnx_file(names: Collection[str]) -> str | None:
    """Return which of these files ONNX Runtime loads, or None if none of them is an ONNX model."""
    return next((name for name in ONNX_FILES if name in names), None)


def needed_files(engine: EngineName, names: Collection[str], *, gpus: int) -> list[str]:
    """Return the files of an artifact that a server with this engine reads: not the weights in other formats."""
    documents = (SERVING_DOCUMENT_FILE, TOKENIZER_FILE, CONFIG_FILE, REFERENCE_FILE)
    small = [name for name in names if name in documents]
    if select_engine(engine, gpus=gpus) == "torch":
        return small + [name for name in names if name.startswith("model") and ".safetensors" in name]
    # Weights of more than 2 GiB are in a file of their own, model.onnx.data.
    chosen = select_onnx_file(names)
    return small + [name for name in names if chosen and name.startswith(chosen)]


def open_engine(folder: Path, engine: EngineName, *, per_token: bool, gpus: int, cpus: int) -> Engine:
    """Load the model of an artifact.

    Args:
        folder: the artifact's files, verified.
        engine: which engine.
        per_token: whether its task is per token.
        gpus: GPUs of this replica.
        cpus: threads to compute with.

    Raises:
        LoadError: the engine cannot load the artifact, or the image lacks the engine.
    """
    if select_engine(engine, gpus=gpus) == "onnxruntime":
        from luthier_serving.compute.engines.onnx_engine import OnnxEngine

        return OnnxEngine(folder, threads=cpus)
    try:
        from luthier_serving.compute.engines.torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        raise LoadError(
            Reason.INVALID_SPEC,
            f"Engine torch needs the package {error.name}, which this server image does not have; use an image built "
            "with TORCH=1, or engine onnxruntime.",
        ) from None
    return TorchEngine(folder, per_token=per_token, gpus=gpus, threads=cpus)
