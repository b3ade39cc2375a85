"""What computes a model, behind one interface.

An engine gets a rectangle of token ids and returns logits. Everything around that (cleaning, tokenization, what shares
a batch, what the logits mean) is the same for all engines and lies in `model` and what that calls. `open_engine` picks
one; each imports its library only when it is picked, so that the CPU image needs no torch.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from luthier_api.base import Engine as EngineName
from luthier_api.documents import SERVING_DOCUMENT_FILE
from luthier_api.reasons import Reason
from luthier_serving.errors import LoadError

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]

INT8_FILE = "model.int8.onnx"
# In the order in which ONNX Runtime would have them: what the trainer ships has passed its accuracy check there.
ONNX_FILES = (INT8_FILE, "model.onnx")


class Batch(NamedTuple):
    """Texts of one batch, each of shape [texts, tokens]; token types only where the model reads pairs."""

    input_ids: Ids
    attention_mask: Ids
    token_type_ids: Ids | None = None


class Engine(Protocol):
    """A loaded model.

    Attributes:
        name: for logs.
        weights: name of the file that it loaded.
        pads: whether texts of different lengths may share a batch at little cost, as on a GPU.
        independent: whether a text gets the same logits whatever else is in its batch.
    """

    name: str
    weights: str
    pads: bool
    independent: bool

    def logits(self, batch: Batch) -> Logits:
        """Return logits [texts, labels], or [texts, tokens, labels] of a model per token."""


def chosen_engine(engine: EngineName, *, gpus: int) -> EngineName:
    """Return the engine that auto stands for: torch with a GPU, else ONNX Runtime."""
    if engine != "auto":
        return engine
    return "torch" if gpus else "onnxruntime"


def chosen_onnx(names: Collection[str]) -> str | None:
    """Return the ONNX file that is loaded of these, or None."""
    return next((name for name in ONNX_FILES if name in names), None)


def files_to_read(engine: EngineName, names: Collection[str], *, gpus: int) -> list[str]:
    """Return which files of an artifact a server with this engine reads; weights in other forms are of no use to it."""
    small = [name for name in names if name in (SERVING_DOCUMENT_FILE, "tokenizer.json", "config.json")]
    if chosen_engine(engine, gpus=gpus) == "torch":
        return small + [name for name in names if name.startswith("model") and ".safetensors" in name]
    # Weights of more than 2 GiB lie beside the graph, in model.onnx.data.
    chosen = chosen_onnx(names)
    return small + [name for name in names if chosen and name.startswith(chosen)]


def open_engine(folder: Path, engine: EngineName, *, per_token: bool, gpus: int, cpus: int) -> Engine:
    """Load the model of an artifact.

    Args:
        folder: the artifact's files, verified.
        engine: which engine.
        per_token: whether it has logits for each token.
        gpus: GPUs of this replica.
        cpus: threads to compute with.

    Raises:
        LoadError: the artifact does not suit the engine, or the image lacks it.
    """
    if chosen_engine(engine, gpus=gpus) == "onnxruntime":
        from luthier_serving.compute.engines.onnx_engine import OnnxEngine

        return OnnxEngine(folder, threads=cpus)
    try:
        from luthier_serving.compute.engines.torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        raise LoadError(
            Reason.INVALID_SPEC,
            f"The engine torch needs the package {error.name}, which this server image lacks; use an image built with "
            "TORCH=1, or engine onnxruntime.",
        ) from None
    return TorchEngine(folder, per_token=per_token, gpus=gpus, threads=cpus)
