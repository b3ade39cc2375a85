"""Where everything is printed: text for people on standard output, JSON for programs, and errors on standard error."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Any

from rich.console import Console, RenderableType

_PLAIN_WIDTH = 120


class Format(StrEnum):
    """What a command prints."""

    TEXT = "text"
    JSON = "json"


def console(*, stderr: bool = False) -> Console:
    """Return a console on the stream as it is now; in a pipe, lines are as wide as most editors show."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, highlight=False, width=width, soft_wrap=False)


def show(page: RenderableType) -> None:
    """Print a page."""
    console().print(page)


def say(line: str, *, stderr: bool = False) -> None:
    """Print a line as it is, without markup, and without breaking it: it may be copied."""
    console(stderr=stderr).print(line, markup=False, soft_wrap=True)


def show_json(value: Any) -> None:
    """Print a value for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
