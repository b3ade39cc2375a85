"""ONNX Runtime on CPU: loads `model.onnx` of an artifact.

On a CPU padding is computed like text, so batches of this engine hold texts of one length only (see `planning`).
"""

from pathlib import Path

import numpy as np
import onnxruntime

from luthier_api.reasons import Reason
from luthier_serving.engines import Ids, Logits
from luthier_serving.errors import LoadError

MODEL_FILE = "model.onnx"
KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class OnnxEngine:
    """A session on as many threads as the container has CPUs."""

    name = "onnxruntime"
    pads = False

    def __init__(self, folder: Path, *, threads: int):
        path = folder / MODEL_FILE
        if not path.is_file():
            raise LoadError(
                Reason.INVALID_MODEL,
                f"The artifact has no {MODEL_FILE}, which engine onnxruntime loads; train it with onnx in spec.export, "
                "or serve it with engine torch.",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin between requests take CPU from the front and from the other revision in the pod.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises a class of its own for each status code
            raise LoadError(Reason.INVALID_MODEL, f"ONNX Runtime cannot load {MODEL_FILE}: {error}") from error
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        if not {"input_ids"} <= self._inputs <= KNOWN_INPUTS:
            raise LoadError(
                Reason.INVALID_MODEL,
                f"{MODEL_FILE} takes the inputs {', '.join(sorted(self._inputs))}; the server gives input_ids, "
                "attention_mask and token_type_ids.",
            )
        self._output = self._session.get_outputs()[0].name

    def logits(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Return logits [texts, labels]."""
        feed = {"input_ids": input_ids}
        if "attention_mask" in self._inputs:
            feed["attention_mask"] = attention_mask
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(input_ids)
        [logits] = self._session.run([self._output], feed)
        return np.asarray(logits, dtype=np.float32)
