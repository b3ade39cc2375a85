"""What can go wrong with a batch prediction itself; the rest comes from storage, the readers and the model.

BulkError
├── InputChanged   the input is no longer what the run began with
└── WrongModel     the model cannot read the columns that the spec names

StopRequested      raised by the signal handler; not an Exception, so that no library swallows it
"""

from typing import ClassVar

from luthier_api.exitcodes import ExitCode


class BulkError(Exception):
    """Base of the failures of a batch prediction. A message says what happened and what to do."""

    exit_code: ClassVar[ExitCode]


class InputChanged(BulkError):
    """The input is no longer what the run began with."""

    exit_code = ExitCode.INTEGRITY_ERROR


class WrongModel(BulkError):
    """The model cannot read the columns that the spec names."""

    exit_code = ExitCode.INVALID_SPEC


class StopRequested(BaseException):
    """SIGTERM arrived."""
