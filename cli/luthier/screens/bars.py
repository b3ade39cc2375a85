"""Shares in characters: they look the same in a terminal, a log and a notebook."""

from __future__ import annotations

from rich.text import Text

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(percent: float, width: int = 28, style: str = "green") -> Text:
    """Return a bar that is filled to `percent`."""
    eighths = round(max(0.0, min(100.0, percent)) / 100 * width * 8)
    whole, rest = divmod(eighths, 8)
    filled = "█" * whole + (_EIGHTHS[rest] if rest else "")
    return Text.assemble((filled, style), ("░" * (width - len(filled)), "dim"))
