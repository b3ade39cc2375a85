"""Which columns hold the texts and the labels, and so which task it is.

Names decide first, since people name their columns for what they are; then what is in the cells. Every choice comes
with the reason that is shown to the user.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from luthier.errors import Invalid
from luthier.proposal.table import Table
from luthier_api.training import Task

_TEXTS = ("text", "review", "sentence", "comment", "content", "message", "body", "tweet", "document", "description",
          "utterance", "question", "title", "input", "tokens", "words")  # fmt: skip
_LABELS = ("label", "labels", "class", "category", "categories", "target", "sentiment", "topic", "topics", "tags",
           "tag", "intent", "emotion", "stars", "rating", "score", "ner_tags", "y", "output", "annotation")  # fmt: skip
_PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"),
          ("text_a", "text_b"), ("question", "sentence"), ("question", "answer"), ("query", "document"),
          ("text", "text_pair"))  # fmt: skip
_SEPARATORS = ("|", ";", ",")
# More classes than that are rather numbers, or texts.
_MOST_CLASSES = 200
_MOST_INTEGER_CLASSES = 20
_NUMBER = re.compile(r"-?\d+([.,]\d+)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Columns:
    """The roles of a table's columns."""

    task: Task
    text: str
    pair: str | None = None
    label: str | None = None
    indicators: tuple[str, ...] = ()
    separator: str | None = None
    labels: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter, compare=False)
    reasons: tuple[str, ...] = ()


def find_columns(table: Table, text: str | None = None, label: str | None = None, task: Task | None = None) -> Columns:
    """Return the roles of a table's columns; what is given is not guessed.

    Raises:
        Invalid: if a column is not there, or no column can be the text or the label.
    """
    for name in (text, label):
        if name is not None and name not in table.columns:
            raise Invalid(f"There is no column {name}; the file has: {', '.join(table.columns)}.")
    texts = [text] if text else _text_columns(table, label)
    if not texts:
        raise Invalid(f"No column looks like text: name it with --text. The file has: {', '.join(table.columns)}.")
    pair = None if text else _pair_of(table, texts)
    chosen = pair[0] if pair else texts[0]
    reasons = [_said_text(table, chosen)]
    if pair:
        reasons.append(f"{pair[0]} and {pair[1]} are a pair of texts, by their names")
    taken = {chosen, pair[1] if pair else chosen}
    if label is None and (indicators := _indicators(table, taken)) and _named(table, _LABELS, taken) is None:
        counts = Counter(
            {name: sum(cell.strip() in ("1", "1.0") for cell in table.columns[name]) for name in indicators}
        )
        reasons.append(f"{len(indicators)} columns of 0 and 1, one for each label: {', '.join(indicators[:6])}")
        return Columns(
            Task.MULTI_LABEL,
            chosen,
            pair[1] if pair else None,
            None,
            tuple(indicators),
            None,
            (),
            counts,
            tuple(reasons),
        )
    label = label or _label_column(table, taken)
    if tagged := _tagged(table, chosen, label):
        reasons.append(f"{label} holds a label for each of the words in {chosen}")
        return Columns(Task.TOKEN_CLASSIFICATION, chosen, label=label, counts=tagged, reasons=tuple(reasons))
    found, counts, separator, why = _task_of(table.columns[label], task)
    reasons.append(f"{label} holds the label: {why}")
    labels = () if found is Task.REGRESSION else _ordered(counts)
    if found is not Task.REGRESSION and len(labels) < 2:
        raise Invalid(
            f"The column {label} has {len(labels)} label; a model needs two to tell apart. Choose with --label."
        )
    return Columns(found, chosen, pair[1] if pair else None, label, (), separator, labels, counts, tuple(reasons))


def _named(table: Table, names: tuple[str, ...], taken: set[str]) -> str | None:
    lowered = {name.lower().strip(): name for name in table.columns if name not in taken}
    return next((lowered[name] for name in names if name in lowered), None)


def _text_columns(table: Table, label: str | None) -> list[str]:
    """Return the columns that may hold texts, the likeliest first."""

    def likelihood(name: str) -> float:
        cells = [cell for cell in table.columns[name] if cell]
        if not cells or _share(cells, _is_number) > 0.5:
            return 0.0
        words = sum(len(cell.split()) for cell in cells) / len(cells)
        various = len(set(cells)) / len(cells)
        # Text without spaces is text too: Chinese, Japanese, Thai.
        length = max(words, sum(len(cell) for cell in cells) / len(cells) / 12)
        named = 4.0 if name.lower().strip() in _TEXTS else 1.0
        return length * various * named if length * named > 1.5 else 0.0

    rated = {name: likelihood(name) for name in table.columns if name != label}
    return sorted((name for name, rate in rated.items() if rate > 0), key=lambda name: -rated[name])


def _pair_of(table: Table, texts: list[str]) -> tuple[str, str] | None:
    lowered = {name.lower().strip(): name for name in texts}
    found = next((pair for pair in _PAIRS if pair[0] in lowered and pair[1] in lowered), None)
    return (lowered[found[0]], lowered[found[1]]) if found else None


def _label_column(table: Table, taken: set[str]) -> str:
    if named := _named(table, _LABELS, taken):
        return named
    rated: dict[str, int] = {}
    for name, cells in table.columns.items():
        values = Counter(cell for cell in cells if cell)
        if name not in taken and 2 <= len(values) <= _MOST_CLASSES and len(values) < table.rows / 2:
            rated[name] = len(values)
    if not rated:
        raise Invalid(f"No column looks like a label: name it with --label. The file has: {', '.join(table.columns)}.")
    return min(rated, key=lambda name: rated[name])


def _indicators(table: Table, taken: set[str]) -> list[str]:
    """Return the columns of 0 and 1, if there are several that are not all the same."""
    found = [
        name
        for name, cells in table.columns.items()
        if name not in taken and set(cells) <= {"0", "1", "0.0", "1.0", ""} and len(set(cells) - {""}) == 2
    ]
    return found if len(found) >= 2 else []


def _task_of(cells: list[str], wanted: Task | None) -> tuple[Task, Counter[str], str | None, str]:
    """Return the task that a column of labels stands for, its labels, the separator between them, and why."""
    filled = [cell for cell in cells if cell]
    if not filled:
        raise Invalid("The column of the labels is empty; choose another one with --label.")
    lists = _lists(filled)
    numbers = _share(filled, _is_number) > 0.98
    if wanted in (None, Task.MULTI_LABEL):
        # 1,5 is a number in half of Europe.
        separator = None if lists or numbers else _separator(filled, sure=wanted is not None)
        parts = lists or [[part.strip() for part in cell.split(separator)] for cell in filled if separator]
        if parts:
            counts = Counter(label for row in parts for label in row if label)
            how = "lists" if lists else f"several in a cell, separated by {separator!r}"
            # A comma is the contract's default.
            return Task.MULTI_LABEL, counts, None if separator == "," else separator, f"{how}, so multi-label"
    if wanted is Task.MULTI_LABEL:
        return Task.MULTI_LABEL, Counter(filled), None, "as --task says"
    values = Counter(filled)
    whole = numbers and all(re.fullmatch(r"-?\d+(\.0+)?", cell) for cell in filled if _is_number(cell))
    if wanted is Task.REGRESSION or (wanted is None and numbers and (not whole or len(values) > _MOST_INTEGER_CLASSES)):
        return Task.REGRESSION, Counter(), None, f"numbers of {len(values)} different values, so regression"
    if wanted is None and len(values) > _MOST_CLASSES:
        raise Invalid(f"The label has {len(values)} different values, which are too many classes; choose with --label.")
    note = "; --task regression predicts a number instead" if whole and len(values) > 2 else ""
    return wanted or Task.TEXT_CLASSIFICATION, values, None, f"{len(values)} classes{note}"


def _lists(cells: list[str]) -> list[list[str]]:
    """Return the cells as lists of texts, if they are written as JSON lists."""
    if not all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        return []
    try:
        return [[str(label) for label in json.loads(cell)] for cell in cells]
    except ValueError:
        return []


def _separator(cells: list[str], *, sure: bool) -> str | None:
    """Return what separates labels in the cells: parts that come back in other company are labels of their own."""
    for separator in _SEPARATORS:
        joined = [cell for cell in cells if separator in cell]
        if not joined or (len(joined) < 0.05 * len(cells) and not sure):
            continue
        parts = Counter(part.strip() for cell in cells for part in cell.split(separator) if part.strip())
        again = sum(count > 1 for count in parts.values())
        if sure or (len(parts) <= _MOST_CLASSES and again >= 0.8 * len(parts) and len(parts) < len(set(cells))):
            return separator
    return None


def _ordered(counts: Counter[str]) -> tuple[str, ...]:
    """Return labels in the order in which people expect them: numbers by value, words by the alphabet."""
    if all(_is_number(label) for label in counts):
        return tuple(sorted(counts, key=lambda label: float(label.replace(",", "."))))
    return tuple(sorted(counts))


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip()) is not None


def _share(cells: list[str], holds: Callable[[str], bool]) -> float:
    return sum(holds(cell) for cell in cells) / len(cells)


def _said_text(table: Table, name: str) -> str:
    cells = [cell for cell in table.columns[name] if cell]
    words = sum(len(cell.split()) for cell in cells) / max(len(cells), 1)
    return f"{name} holds the text: {words:.0f} words in the mean"


def _tagged(table: Table, text: str, label: str) -> Counter[str]:
    """Return the labels of words, if texts and labels are lists of equal lengths; else nothing."""
    words, labels = _lists(table.columns[text]), _lists(table.columns[label])
    if not words or [len(row) for row in words] != [len(row) for row in labels]:
        return Counter()
    return Counter(each for row in labels for each in row)
