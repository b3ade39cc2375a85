"""Everything that can go wrong, each with the exit code of the command that it ends.

    LuthierError             1  anything without a code of its own
    ├── NotFound             3  no such resource, version, file or alias
    ├── Invalid              4  a file, an argument or a resource that cannot be right
    ├── Denied               5  the API server or storage does not allow it
    ├── Unreachable          6  the API server, storage or the model does not answer
    ├── Stalled              7  the resource reports that it will not become ready by itself
    ├── TimedOut             8  not ready in time
    └── Declined             9  the question was answered with no

2 is for arguments that the command does not have, and 130 for Ctrl-C, as everywhere. A message is one sentence: what
happened, and what to do.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes of `luthier`. They are API."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    INVALID = 4
    DENIED = 5
    UNREACHABLE = 6
    STALLED = 7
    TIMED_OUT = 8
    DECLINED = 9
    INTERRUPTED = 130


class LuthierError(Exception):
    """Base of all errors of this package; its message is for people."""

    code: ClassVar[ExitCode] = ExitCode.FAILED


class NotFound(LuthierError):
    """There is no such thing."""

    code = ExitCode.NOT_FOUND


class Invalid(LuthierError):
    """What was given cannot be right."""

    code = ExitCode.INVALID


class Denied(LuthierError):
    """It is there, and may not be done."""

    code = ExitCode.DENIED


class Unreachable(LuthierError):
    """Nobody answers."""

    code = ExitCode.UNREACHABLE


class Stalled(LuthierError):
    """A resource reports that it is stalled; the message is its own."""

    code = ExitCode.STALLED


class TimedOut(LuthierError):
    """Not so in time."""

    code = ExitCode.TIMED_OUT


class Declined(LuthierError):
    """Whoever was asked said no."""

    code = ExitCode.DECLINED
