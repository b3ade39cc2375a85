"""All known failures of a run, each with its exit code.

    ReadError             of the readers of rows, which the server has too
    ├── InvalidSpec       the run document asks for something impossible
    └── InvalidData       the dataset cannot be read, or misses a limit of spec.dataset.quality

    TrainerError
    ├── InvalidModel      the base model is incomplete, or has no head for the task
    ├── InputNotFound     a model that its hub does not have (storage has its own ObjectNotFound)
    ├── InputChanged      an input is no longer what prepare saw
    ├── OutOfMemory
    ├── GpuOutOfMemory
    ├── LossNotFinite     training diverged
    ├── ExportFailed      the model cannot be exported to a requested format, or computes something else there
    ├── Preempted         the process was asked to stop
    ├── PeerLost          another process of the same training ended
    ├── AlreadyTraining   another run trains the same
    └── WeightsGone       the version whose weights were to be used does not exist any more

    StopRequested         raised by the signal handler; not an Exception, so that no library swallows it

A message is one or two sentences: what happened, where, and what to do. Mapping to a result lies in `outcome`.
"""

from typing import ClassVar

from luthier_api.exitcodes import ExitCode
from luthier_artifacts.readers.errors import InvalidData as InvalidData
from luthier_artifacts.readers.errors import InvalidSpec as InvalidSpec
from luthier_artifacts.readers.errors import ReadError as ReadError


class TrainerError(Exception):
    """Base of all known failures of a run."""

    exit_code: ClassVar[ExitCode]


class InvalidModel(TrainerError):
    """The base model is incomplete, or has no head for the task."""

    exit_code = ExitCode.INVALID_MODEL


class InputNotFound(TrainerError):
    """An input does not exist where the spec says."""

    exit_code = ExitCode.INPUT_NOT_FOUND


class InputChanged(TrainerError):
    """An input is no longer what prepare saw."""

    exit_code = ExitCode.INTEGRITY_ERROR


class OutOfMemory(TrainerError):
    """The host ran out of memory, and the process survived to report it."""

    exit_code = ExitCode.OUT_OF_MEMORY


class GpuOutOfMemory(TrainerError):
    """The GPU ran out of memory."""

    exit_code = ExitCode.GPU_OUT_OF_MEMORY


class LossNotFinite(TrainerError):
    """Training diverged: the loss is NaN or infinite."""

    exit_code = ExitCode.LOSS_NOT_FINITE


class ExportFailed(TrainerError):
    """The model cannot be exported to a requested format, or computes something else there."""

    exit_code = ExitCode.EXPORT_FAILED


class Preempted(TrainerError):
    """The process was asked to stop."""

    exit_code = ExitCode.PREEMPTED


class PeerLost(TrainerError):
    """Another process of the same training ended, and this one cannot continue without it."""

    # Retried without counting: what counts is the failure of the process that ended.
    exit_code = ExitCode.PREEMPTED


class AlreadyTraining(TrainerError):
    """Another run trains the same; *prepare* waits for it, without a GPU."""

    exit_code = ExitCode.PREPARE_AGAIN


class WeightsGone(TrainerError):
    """The version whose weights were to be used does not exist any more; *prepare* decides anew."""

    exit_code = ExitCode.PREPARE_AGAIN


class StopRequested(BaseException):
    """SIGTERM arrived. Not an Exception, so that no `except Exception` of a library swallows it."""
