"""What computes a model, behind one interface.

An engine gets a rectangle of token ids and returns logits. Everything around that (cleaning, tokenization, what shares
a batch, probabilities) is the same for all engines and lies in `classifier`. `open_engine` picks one; each imports its
library only when it is picked, so that the CPU image needs no torch.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from luthier_api.base import Engine as EngineName
from luthier_api.reasons import Reason
from luthier_serving.errors import LoadError

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class Engine(Protocol):
    """A loaded model.

    Attributes:
        name: for logs.
        pads: whether texts of different lengths may share a batch at little cost, as on a GPU.
    """

    name: str
    pads: bool

    def logits(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Return logits [texts, labels] for token ids and mask [texts, tokens]."""


def open_engine(folder: Path, engine: EngineName, *, gpus: int, cpus: int) -> Engine:
    """Load the model of an artifact.

    Args:
        folder: the artifact's files, verified.
        engine: which engine; auto is torch with a GPU, else ONNX Runtime.
        gpus: GPUs of this replica.
        cpus: threads to compute with.

    Raises:
        LoadError: the artifact does not suit the engine, or the image lacks it.
    """
    chosen = engine if engine != "auto" else "torch" if gpus else "onnxruntime"
    if chosen == "onnxruntime":
        from luthier_serving.engines.onnx_engine import OnnxEngine

        return OnnxEngine(folder, threads=cpus)
    try:
        from luthier_serving.engines.torch_engine import TorchEngine
    except ModuleNotFoundError as error:
        raise LoadError(
            Reason.INVALID_SPEC,
            f"The engine torch needs the package {error.name}, which this server image lacks; use an image built with "
            "TORCH=1, or engine onnxruntime.",
        ) from None
    return TorchEngine(folder, gpus=gpus, threads=cpus)
