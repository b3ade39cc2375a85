"""The workbench's exceptions, as one tree; the command line prints each as one sentence.

    DevError
    ├── MachineError       the machine lacks something: a package, root, a free address range
    ├── CommandFailed      a program that we ran said no; carries the log
    └── NotReady           something did not become ready in its time

Anything else that escapes is a bug of ours and is shown with its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class DevError(Exception):
    """The message says what happened and what to do."""


class MachineError(DevError):
    """This machine lacks something that the workbench cannot set up by itself."""


class CommandFailed(DevError):
    """A program ended with an error; its output lies in `log`."""

    def __init__(self, argv: Sequence[str], returncode: int, log: Path | None, tail: str) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.log = log
        self.tail = tail
        shown = " ".join(argv[:4]) + (" …" if len(argv) > 4 else "")
        super().__init__(f"`{shown}` ended with status {returncode}")


class NotReady(DevError):
    """Something did not become ready in time."""
