"""Reads labels from cells: what a column of text, numbers, booleans or lists says a label is. Pure."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal

# As pandas writes booleans into CSV; other formats have them as booleans.
_BOOLEANS = {"True": "true", "False": "false"}
# A column of whole numbers with gaps is written so by pandas; as numbers, other formats have them without the point.
_WHOLE = re.compile(r"(-?[0-9]{1,15})\.0+")
# One item of a list that became text: in quotes, or without anything that could end it.
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ITEM = re.compile(rf"\s*({_QUOTED}|[^\s,'\"\[\](){{}}]+)\s*(,?)")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_NUMBER = re.compile(r"-?[0-9]+\.?[0-9]*")


def label_text(cell: object) -> str | None:
    """Return one label as text: 1 is "1", true is "true", 0.5 is "0.5", and 1.0 is "1", as a column with gaps has it.

    Raises:
        ValueError: with a phrase that says what the cell holds instead.
    """
    if cell is None or cell == "" or cell != cell:
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float | Decimal) and math.isfinite(cell):
        return (
            str(int(cell))
            if cell == int(cell)
            else f"{cell.normalize():f}"
            if isinstance(cell, Decimal)
            else repr(cell)
        )
    if not isinstance(cell, str):
        raise ValueError(f"{_shown(cell)}; a label is text, a number or a boolean")
    return canonical(cell.strip()) or None


def canonical(label: str) -> str:
    """Return the one spelling of a label: 1.0 is 1 and True is true in every format."""
    whole = _WHOLE.fullmatch(label)
    return whole[1] if whole else _BOOLEANS.get(label, label)


def single_label(cell: object) -> str | None:
    """Return one label as text.

    Raises:
        ValueError: with a phrase, also where the cell is a list that became text.
    """
    label = label_text(cell)
    items = listed(label) if label else None
    # One word in brackets may well be the name of a label.
    if label and items is not None and (items != [label[1:-1].strip()] or _NUMBER.fullmatch(items[0])):
        advice = "give one label, or set task: multi-label if there may be several"
        raise ValueError(f"{_shown(label)}, a list that became text; {advice}")
    return label


def label_list(cell: object, separator: str | None) -> tuple[str, ...] | None:
    """Return the labels of a list, or of a text in which they are separated; None for white space separates them.

    An empty list is no label at all, and so is a text of nothing but separators; an empty cell is a missing one. A text
    that a list became, such as "['a', 'b']" or "[3 0 7]", is read as the list.

    Raises:
        ValueError: with a phrase that says what the cell holds instead.
    """
    if not isinstance(cell, list | tuple):
        text = label_text(cell)
        if text is None:
            return None
        items = listed(text)
        if items is None:
            pieces = [piece.strip() for piece in text.split(separator) if piece.strip()]
            if any(piece.count("[") != piece.count("]") for piece in pieces):
                raise _unclear(text, "which seems to be a list that became text")
            return tuple(map(canonical, pieces))
        cell = [None if item in ("None", "nan", "null") else item for item in items]
    labels = [label_text(item) for item in cell]
    if None in labels:
        raise ValueError(f"{_shown(cell)}, a list with an empty label")
    return tuple(label for label in labels if label is not None)


def listed(text: str) -> list[str] | None:
    """Return the items of a text that a list became, as Python, JSON or numpy write it; None for other texts.

    Raises:
        ValueError: with a phrase, for a list whose items are left out or cannot be told apart.
    """
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return None
    inside, items, commas, place = text[1:-1].strip(), [], [], 0
    while place < len(inside):
        item = _ITEM.match(inside, place)
        if item is None:
            if inside[0] not in "'\"":
                return None
            raise _unclear(text, "which is not a whole list")
        items.append(item[1])
        commas.append(bool(item[2]))
        place = item.end()
    if text[0] != "[" and not all(item[0] in "'\"" for item in items):
        return None  # (none) may well be the name of a label
    if "..." in items:
        raise _unclear(text, "from which numpy has left items out")
    named = [item for item in items if item[0] not in "'\"" and not _NUMBER.fullmatch(item)]
    if len(named) > 1 and not all(commas[:-1]):
        if len(named) == len(items):
            return None
        raise _unclear(text, "whose items cannot be told apart")
    return [_unquoted(item) for item in items]


def words_listed(text: str) -> list[str] | None:
    """Return the words of a text that a list of words became; its items are in quotes, as words in brackets are not."""
    items = listed(text) if text[:1] == "[" and text[1:2] in ("'", '"') else None
    return items or None


def repeated(labels: Sequence[str]) -> str | None:
    """Return a label that is there more than once."""
    return next((label for place, label in enumerate(labels) if label in labels[:place]), None)


def _unclear(text: str, why: str) -> ValueError:
    return ValueError(f"{_shown(text)}, {why}; write lists as JSON lines or Parquet, or labels with a separator")


def _unquoted(item: str) -> str:
    if item[0] not in "'\"":
        return item.rstrip(".") if _NUMBER.fullmatch(item) else item
    return re.sub(r"\\(.)", r"\1", item[1:-1])


def _shown(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else text[:40] + "…"
