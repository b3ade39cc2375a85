"""ONNX Runtime on CPU: loads `model.int8.onnx` of an artifact, or `model.onnx` if it has no int8 model.

On a CPU padding costs as much as text, so all texts in a batch of this engine have the same length (see `batch_plan`).
With int8 a batch is a single text, so that its answer does not depend on others.
"""

import logging
from pathlib import Path

import numpy as np
import onnxruntime

from luthier_api.artifact_files import INT8_ONNX_FILE, ONNX_FILES
from luthier_api.reasons import Reason
from luthier_serving.compute.engines import Batch, select_onnx_file
from luthier_serving.errors import LoadError
from luthier_serving.tasks.interface import Logits

KNOWN_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}

logger = logging.getLogger("ray.serve")


class OnnxEngine:
    """A session with one thread for each CPU of the container."""

    pads = False

    def __init__(self, folder: Path, *, threads: int):
        chosen = select_onnx_file([name for name in ONNX_FILES if (folder / name).is_file()])
        if chosen is None:
            raise LoadError(
                Reason.INVALID_MODEL,
                "The artifact has no model.onnx, which engine onnxruntime loads; add onnx to spec.export and train "
                "again, or use engine torch.",
            )
        self.weights = chosen
        # Dynamic quantization uses one scale for all activations of a batch.
        self.batch_invariant = chosen != INT8_ONNX_FILE
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin between requests take CPU time from HTTP, in this process, and from the other revision in
        # the pod.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = str(folder / chosen)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library has an exception class for each status code
            raise LoadError(Reason.INVALID_MODEL, f"ONNX Runtime cannot load {chosen}: {error}") from error
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        if not {"input_ids"} <= self._inputs <= KNOWN_INPUTS:
            raise LoadError(
                Reason.INVALID_MODEL,
                f"{chosen} has the inputs {', '.join(sorted(self._inputs))}; the server provides input_ids, "
                "attention_mask and token_type_ids.",
            )
        self._output = self._session.get_outputs()[0].name
        logger.info("ONNX Runtime loaded %s with %d threads", chosen, threads)

    def logits(self, batch: Batch) -> Logits:
        """Return logits: [texts, labels], or [texts, tokens, labels] for a task per token."""
        feed = {"input_ids": batch.input_ids}
        if "attention_mask" in self._inputs:
            feed["attention_mask"] = batch.attention_mask
        if "token_type_ids" in self._inputs:
            types = batch.token_type_ids
            feed["token_type_ids"] = np.zeros_like(batch.input_ids) if types is None else types
        [logits] = self._session.run([self._output], feed)
        return np.asarray(logits, dtype=np.float32)
