"""Maps the exception that ended a run to an exit code and to the Failure that the operator reads; nothing else does.

Needs neither torch nor a network, so that it always works.
"""

import errno
import traceback
from collections.abc import Callable

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import OUTCOMES, ExitCode
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
from luthier_trainer.runtime.errors import ReadError, StopRequested, TrainerError

MESSAGE_CHARACTERS = 1500
_PLACE_CHARACTERS = 200

_STORAGE: dict[type[StorageError], ExitCode] = {
    InvalidUri: ExitCode.INVALID_SPEC,
    StorageDenied: ExitCode.STORAGE_DENIED,
    CredentialsExpired: ExitCode.CREDENTIALS_EXPIRED,
    BucketNotFound: ExitCode.BUCKET_NOT_FOUND,
    ObjectNotFound: ExitCode.INPUT_NOT_FOUND,
    StorageUnavailable: ExitCode.STORAGE_UNAVAILABLE,
    # Another writer keeps winning the race; a retry may succeed.
    PreconditionFailed: ExitCode.STORAGE_UNAVAILABLE,
    IntegrityError: ExitCode.INTEGRITY_ERROR,
    ConditionalWritesUnsupported: ExitCode.STORAGE_UNSAFE,
}


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code for an error; CRASHED for unexpected errors."""
    if isinstance(error, TrainerError | ReadError):
        return error.exit_code
    if isinstance(error, StopRequested):
        return ExitCode.PREEMPTED
    if isinstance(error, MemoryError):
        return ExitCode.OUT_OF_MEMORY
    for type_, code in _STORAGE.items():
        if isinstance(error, type_):
            return code
    return ExitCode.CRASHED


def is_known(error: BaseException) -> bool:
    """Tell whether the error is a known one, which needs no traceback in the log."""
    return exit_code_of(error) is not ExitCode.CRASHED


def failure_result(error: BaseException) -> Result:
    """Return the result document for an error, with a message that fits."""
    code = exit_code_of(error)
    message = _sentence(error, code)
    if len(message) > MESSAGE_CHARACTERS:
        message = message[: MESSAGE_CHARACTERS - 1] + "…"
    place = _place(error) if code is ExitCode.CRASHED else None
    return Result(failure=Failure(reason=OUTCOMES[code].reason, message=message, place=place))


def _sentence(error: BaseException, code: ExitCode) -> str:
    text = str(error).strip()
    special: dict[ExitCode, Callable[[], str]] = {
        ExitCode.PREEMPTED: lambda: text or "The run was asked to stop and has published nothing.",
        ExitCode.OUT_OF_MEMORY: lambda: text or f"The process ran out of memory. {OUTCOMES[code].hint}",
        ExitCode.CRASHED: lambda: _crash(error, text),
    }
    return special[code]() if code in special else text or OUTCOMES[code].hint


def _crash(error: BaseException, text: str) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full; give the pod more ephemeral storage."
    first_line = text.splitlines()[0] if text else "no message"
    return f"{type(error).__name__}: {first_line}. {OUTCOMES[ExitCode.CRASHED].hint}"


def _place(error: BaseException) -> str | None:
    """Return where a crash comes from, as in `ValueError at luthier_trainer.train:88 (torch.nn.functional:2345)`.

    The operator does not try a third time after two crashes at one place. So an error of the system, such as a lost
    connection or a full disk, has none: the next pod may not meet it.
    """
    if isinstance(error, OSError):
        return None
    frames = [f"{frame.f_globals.get('__name__')}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    if not frames:
        return None
    raised = frames[-1]
    own = next((frame for frame in reversed(frames) if frame.startswith("luthier_")), raised)
    text = f"{type(error).__name__} at {own}" + (f" ({raised})" if raised != own else "")
    return text.encode("ascii", "replace").decode()[:_PLACE_CHARACTERS]
