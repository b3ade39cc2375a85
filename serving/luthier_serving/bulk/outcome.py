"""Maps the exception that ended a worker to an exit code and to the Failure that the operator reads."""

import traceback

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import OUTCOMES, ExitCode
from luthier_api.reasons import Reason
from luthier_artifacts import (
    BucketNotFound,
    ConditionalWritesUnsupported,
    CredentialsExpired,
    IntegrityError,
    InvalidUri,
    ObjectNotFound,
    PreconditionFailed,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from luthier_artifacts.readers.errors import ReadError
from luthier_serving.bulk.errors import BulkError, StopRequested
from luthier_serving.errors import LoadError

_LONGEST = 1500
_LONGEST_PLACE = 200
_STORAGE: dict[type[StorageError], ExitCode] = {
    InvalidUri: ExitCode.INVALID_SPEC,
    StorageDenied: ExitCode.STORAGE_DENIED,
    CredentialsExpired: ExitCode.CREDENTIALS_EXPIRED,
    BucketNotFound: ExitCode.BUCKET_NOT_FOUND,
    ObjectNotFound: ExitCode.INPUT_NOT_FOUND,
    StorageUnavailable: ExitCode.STORAGE_UNAVAILABLE,
    PreconditionFailed: ExitCode.STORAGE_UNAVAILABLE,
    IntegrityError: ExitCode.INTEGRITY_ERROR,
    ConditionalWritesUnsupported: ExitCode.STORAGE_UNSAFE,
}
# Reasons of a model that cannot be loaded which no exit code has.
_LOAD = {Reason.MODEL_NOT_FOUND: ExitCode.INPUT_NOT_FOUND, Reason.CONFIG_ERROR: ExitCode.INVALID_SPEC}
STOPPED = "The worker was asked to stop; the next one computes the shards that are missing."


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code for an error; CRASHED for unexpected ones."""
    if isinstance(error, BulkError | ReadError):
        return error.exit_code
    if isinstance(error, StopRequested):
        return ExitCode.PREEMPTED
    if isinstance(error, LoadError):
        known = (code for code, outcome in OUTCOMES.items() if outcome.reason is error.reason)
        return _LOAD.get(error.reason) or next(known, ExitCode.CRASHED)
    if isinstance(error, MemoryError):
        return ExitCode.OUT_OF_MEMORY
    return next((code for kind, code in _STORAGE.items() if isinstance(error, kind)), ExitCode.CRASHED)


def failure_result(error: BaseException) -> Result:
    """Return the result document for an error, with a message that fits."""
    code = exit_code_of(error)
    message = _sentence(error, code)
    message = message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…"
    place = _place(error) if code is ExitCode.CRASHED else None
    return Result(failure=Failure(reason=OUTCOMES[code].reason, message=message, place=place))


def _sentence(error: BaseException, code: ExitCode) -> str:
    if code is ExitCode.PREEMPTED:
        return STOPPED
    if isinstance(error, LoadError):
        return error.sentence
    text = " ".join(str(error).split())
    if code is ExitCode.CRASHED:
        return f"{type(error).__name__}: {text or 'no message'}. {OUTCOMES[code].hint}"
    if isinstance(error, MemoryError):
        return "The worker ran out of memory. Raise runtime.resources.limits.memory, or lower shardRows."
    return text or OUTCOMES[code].hint


def _place(error: BaseException) -> str | None:
    """Return where a crash comes from. An error of the system has no place: the next pod may not meet it."""
    frames = [f"{frame.f_globals.get('__name__')}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, OSError) or not frames:
        return None
    return f"{type(error).__name__} at {frames[-1]}".encode("ascii", "replace").decode()[:_LONGEST_PLACE]
