"""Finds out how a separated file is written: by which separator, and whether quotes have a meaning in it.

What the spec says, holds. What it leaves open is decided only where the file leaves no doubt.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from luthier_api.training import DataFormat
from luthier_artifacts.readers.rows import Columns, separator_name

_SEPARATORS = (",", ";", "\t", "|")
_QUOTE = '"'
# The quotes, and separators that fill the row up, are those of a program that has saved the file again.
_FOR_EXCEL = re.compile(r'"?sep=([^\w\s"]|\t)"?[,;\t|]*', re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    Attributes:
        quotes: whether a cell may be in double quotes.
        certain: whether the spec says so; if not, what quotes make of several lines is doubted.
    """

    separator: str
    quotes: bool
    certain: bool
    escape: str | None

    def reader(self, lines: Iterator[str]) -> Any:
        """Return the standard library's reader for it."""
        return csv.reader(
            lines,
            delimiter=self.separator,
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
            escapechar=self.escape,
            strict=True,
        )

    def __str__(self) -> str:
        """Return it for people."""
        quotes = "cells may be in quotes" if self.quotes else "quotes are characters like any other"
        escape = f", escaped by {self.escape!r}" if self.escape else ""
        return f"separated by {separator_name(self.separator)}, {quotes}{escape}"


def dialect_of(lines: Callable[[], Iterator[str]], format_: DataFormat, columns: Columns, usual: str) -> Dialect:
    """Return how a file is written.

    Args:
        lines: begins to read it anew.
        format_: what the spec says.
        columns: that are looked for.
        usual: separator of files that are called so.
    """
    beginning = (line for line in lines() if line.strip())
    header = next(beginning, "")
    said = separator_said(header)
    if said is not None:
        header = next(beginning, "")
    separator = _character(format_.separator) or said or _separator(header, columns, usual)
    quotes = format_.quoting == "quotes"
    if format_.quoting == "auto":
        rows = (line for line in lines() if separator_said(line) is None)
        quotes = separator != "\t" or bool(format_.escape) or _may_be_quoted(rows, header)
    return Dialect(separator, quotes, format_.quoting != "auto", _character(format_.escape))


def separator_said(line: str) -> str | None:
    """Return the separator that a first line such as `sep=;` says, which is for Excel alone and no row; else None."""
    found = _FOR_EXCEL.fullmatch(line.rstrip("\r\n"))
    return found[1] if found else None


def _character(said: str | None) -> str | None:
    return "\t" if said == r"\t" else said


def _separator(header: str, columns: Columns, usual: str) -> str:
    """Return the separator by which the first line has all columns, if there is exactly one; else the usual one."""
    fitting = [mark for mark in _SEPARATORS if set(columns.names) <= set(_cells(header, mark))]
    return fitting[0] if len(fitting) == 1 else usual


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cells in csv.reader([line], delimiter=separator) for cell in cells]


def _may_be_quoted(lines: Iterator[str], header: str) -> bool:
    """Tell whether quotes may have a meaning in a tab-separated file.

    They cannot where every line has all cells without them, and a cell begins with a quote that does not enclose it.
    """
    tabs, stray = header.count("\t"), False
    for line in lines:
        if not line.strip("\r\n"):
            continue
        if line.count("\t") != tabs:
            return True
        if not stray and _QUOTE in line:
            stray = any(not _is_enclosed(cell) for cell in line.rstrip("\r\n").split("\t") if cell[:1] == _QUOTE)
    return not stray


def _is_enclosed(cell: str) -> bool:
    return len(cell) > 1 and cell[-1] == _QUOTE and _QUOTE not in cell[1:-1].replace(_QUOTE * 2, "")


def is_doubtful(lines: list[str], separator: str, cells: int) -> bool:
    """Tell whether a row that a quote makes of several lines looks like several rows."""
    counts = [line.count(separator) + 1 for line in lines]
    if separator == "\t":
        return sum(count >= cells for count in counts) > 1
    # Texts hold commas, so that here each line must be a whole row.
    return all(count == cells for count in counts)
