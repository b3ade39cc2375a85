"""How much is computed at once: what the spec says, or the most that fits.

The global batch is never touched: smaller micro-batches are only more of them (`batches`). On a CPU memory is large and
more than a few thousand tokens at once gain nothing, so there `auto` is a number; on a GPU it is tried out. Needs torch
for what a GPU says.
"""

import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from luthier_api.training import Hyperparameters
from luthier_trainer.engine.schedule import BatchLimits
from luthier_trainer.runtime.errors import GpuOutOfMemory, OutOfMemory

# Tokens of a forward pass where only memory limits it. Beyond these a pass gets longer and not more efficient.
CPU_TOKENS = 8192
GPU_TOKENS = 65536
# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
# Share of what was found to fit that is used: fragments, and batches whose attention is larger, need the rest.
MARGIN = 0.9


def training_limits(
    parameters: Hyperparameters, *, world: int, padded_to: int, packed: bool, one_length: bool, is_gpu: bool
) -> BatchLimits:
    """Return what a micro-batch of one rank may hold, before anything was tried.

    Args:
        parameters: batchSize is over all ranks.
        world: ranks.
        padded_to: as in `BatchLimits`.
        packed: as in `BatchLimits`.
        one_length: as in `BatchLimits`.
        is_gpu: where it is computed.
    """
    if parameters.batch_size == "auto":
        share = math.ceil(parameters.examples_per_step() / world)
        return BatchLimits(share, GPU_TOKENS if is_gpu else CPU_TOKENS, padded_to, packed, one_length)
    # A number is a promise about memory, kept whatever the lengths.
    return BatchLimits(math.ceil(parameters.batch_size / world), 2**62, padded_to, packed, one_length)


def evaluation_limits(
    parameters: Hyperparameters, *, padded_to: int, packed: bool, one_length: bool, is_gpu: bool
) -> BatchLimits:
    """Return what is evaluated at once."""
    tokens = GPU_TOKENS if is_gpu else CPU_TOKENS
    return BatchLimits(parameters.eval_batch_size, tokens, padded_to, packed, one_length)


def largest_that_fits(try_out: Callable[[int], None], most: int) -> int:
    """Return the largest size that fits, by doubling: a power of two, or `most`; 0 if not even 1 does.

    Args:
        try_out: computes with a size, and raises torch.OutOfMemoryError where it does not fit.
        most: more is not needed.
    """
    fits, size = 0, 1
    while fits < most:
        try:
            try_out(size)
        except torch.OutOfMemoryError:
            break
        fits, size = size, min(2 * size, most)
    release()
    return fits


def keep_freed_blocks() -> None:
    """Let the C library keep large blocks for the next step instead of giving them back to the kernel.

    By default it maps every block of more than 32 MB anew, and the kernel zeroes each page at the first touch: for the
    gradient of an embedding of 30,000 words that is longer than the optimizer takes. For the whole process; where the
    library is not glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def release() -> None:
    """Give what torch keeps for later back to the GPU, so that another size can be laid out in it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def memory_errors(parameters: Hyperparameters) -> Iterator[None]:
    """Turn out-of-memory errors into failures that say what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GpuOutOfMemory(
            f"The GPU ran out of memory with batchSize {parameters.batch_size} (evalBatchSize "
            f"{parameters.eval_batch_size}). Lower it and raise gradientAccumulationSteps, or lower maxLength."
        ) from error
    except RuntimeError as error:
        # torch has no class of its own for the host's memory.
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise OutOfMemory(
            f"The host ran out of memory with batchSize {parameters.batch_size}. Raise resources.limits.memory, or "
            "lower batchSize or maxLength."
        ) from error
