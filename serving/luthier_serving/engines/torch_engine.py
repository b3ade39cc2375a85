"""torch on GPU, or on CPU where it is asked for: loads `config.json` and `model.safetensors` of an artifact.

The only module of the server that imports torch and transformers.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from luthier_api.reasons import Reason
from luthier_serving.engines import Ids, Logits
from luthier_serving.errors import LoadError


class TorchEngine:
    """A model in half precision on the GPU of this replica; in single precision on CPU."""

    name = "torch"

    def __init__(self, folder: Path, *, gpus: int, threads: int):
        if gpus and not torch.cuda.is_available():
            raise LoadError(
                Reason.INVALID_SPEC,
                "The replica has a GPU but torch cannot use it; check the node's driver, and that the image's torch is "
                "built for CUDA.",
            )
        self._device = torch.device("cuda" if gpus else "cpu")
        self.pads = bool(gpus)
        torch.set_num_threads(threads)
        try:
            self._model = AutoModelForSequenceClassification.from_pretrained(
                str(folder), dtype=self._dtype(), local_files_only=True
            )
            self._model.to(self._device).eval()
        except torch.cuda.OutOfMemoryError as error:
            raise LoadError(
                Reason.GPU_OUT_OF_MEMORY, "The model does not fit into the GPU's memory; use a larger GPU."
            ) from error
        except Exception as error:  # safetensors and transformers raise classes of their own, and many
            raise LoadError(Reason.INVALID_MODEL, f"transformers cannot load the artifact: {error}") from error

    def logits(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Return logits [texts, labels]."""
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(input_ids).to(self._device),
                attention_mask=torch.from_numpy(attention_mask).to(self._device),
            )
            logits: Logits = output.logits.float().cpu().numpy().astype(np.float32, copy=False)
            return logits

    def _dtype(self) -> torch.dtype:
        if self._device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
