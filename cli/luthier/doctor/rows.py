"""A row of the doctor's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from luthier.errors import Denied, LuthierError


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    check: str
    level: Level
    message: str
    fix: str = ""


def ok(check: str, message: str) -> Row:
    """Return a row for what is as it should be."""
    return Row(check, Level.OK, message)


def guarded(check: str, look: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """Return the rows of a check; one that may not look, or that fails, is a row too."""
    try:
        yield from look()
    except Denied as error:
        yield Row(check, Level.WARN, f"may not be looked at: {error}", "ask somebody with the right to run this too")
    except LuthierError as error:
        yield Row(check, Level.FAIL, str(error))
