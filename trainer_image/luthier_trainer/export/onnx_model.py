"""A model as ONNX, computed by onnxruntime as the server computes it, and the real texts that it is tried on.

    inputs   input_ids, attention_mask   int64 [batch, sequence], both dynamic
             token_type_ids              the same; only if the model distinguishes the two texts of a pair
    output   logits                      float32 [batch, outputs], of tasks per token [batch, sequence, outputs]

Without token_type_ids models fill in zeros by themselves, which is what a single text has.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from luthier_trainer.engine.collate import Collator, MicroBatch
from luthier_trainer.engine.schedule import BatchLimits, Indices, Lengths, longest_first, micro_batches

# A protobuf message cannot be larger than 2 GiB; beyond this the weights go into a file of their own.
ONE_FILE_BYTES = 1_800_000_000
EXTERNAL_SUFFIX = ".data"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Floats = npt.NDArray[np.float32]


class OnnxModel:
    """A file, opened.

    Attributes:
        seconds: spent computing so far.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        self.seconds = 0.0

    def logits(self, batch: MicroBatch) -> Floats:
        """Return logits [rows, outputs]: of each text, or of each judged token."""
        given = {name: getattr(batch, name).numpy() for name in self._inputs}
        started = time.perf_counter()
        found: Floats = self._session.run(["logits"], given)[0]
        self.seconds += time.perf_counter() - started
        return found if batch.rows is None else found.reshape(-1, found.shape[-1])[batch.rows.numpy()]


def padded_batches(collator: Collator, indices: Indices, texts: int) -> list[MicroBatch]:
    """Return examples in batches of at most so many texts of about one length, the longest first."""
    lengths = collator.part.lengths
    one_length = collator.tokens.padding == "none"
    limits = BatchLimits(texts, int(lengths.max()) * texts, packed=False, one_length=one_length)
    return [
        collator.collate(piece, limits, 0.0)
        for piece in micro_batches(longest_first(indices, lengths), lengths, limits)
    ]


def sample_by_length(lengths: Lengths, count: int, tokens: int) -> Indices:
    """Return at most so many examples, and about so many tokens: the longest, the shortest, and evenly between them."""
    count = max(2, min(count, int(tokens / max(1.0, float(lengths.mean())))))
    order = np.argsort(lengths, kind="stable")
    chosen: Indices = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(int))]
    return chosen


def files_of(path: Path) -> list[Path]:
    """Return the files that a model consists of."""
    return [each for each in (path, Path(f"{path}{EXTERNAL_SUFFIX}")) if each.exists()]


def size_of(paths: Sequence[Path]) -> int:
    """Return the bytes of all files."""
    return sum(path.stat().st_size for path in paths)


def cause_of(error: BaseException) -> str:
    """Return the first line of the error that came first; torch wraps it in advice for its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).strip().splitlines()]
    if not lines:
        return type(error).__name__
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return first.removesuffix(".")[:500]
