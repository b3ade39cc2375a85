"""What can be wrong with a file of rows, or with what a spec says of it, each with the exit code of whoever reads it.

    ReadError
    ├── InvalidSpec   the spec names a format or an encoding that there is not
    └── InvalidData   the file is not what its name says, lacks a column, or has a row that cannot be read

A message is one or two sentences: what happened, where, and what to do.
"""

from typing import ClassVar

from luthier_api.exitcodes import ExitCode


class ReadError(Exception):
    """Base of what makes a file unreadable."""

    exit_code: ClassVar[ExitCode]


class InvalidSpec(ReadError):
    """The spec asks for something impossible."""

    exit_code = ExitCode.INVALID_SPEC


class InvalidData(ReadError):
    """The data cannot be read, or misses a limit that it must keep."""

    exit_code = ExitCode.INVALID_DATA
