"""Picks the answers that are wrong and surest, with the texts they are about, for people to read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.evaluation import Mistake
from luthier_trainer.tasks.metrics.confusion_counts import Array

SHOWN = 20
TEXT_CHARACTERS = 600

Describe = Callable[[int], tuple[str, str]]


def top_mistakes(part: Part, confidence: Array, wrong: npt.NDArray[np.bool_], describe: Describe) -> list[Mistake]:
    """Return the surest wrong answers, of equals the first.

    Args:
        part: the texts.
        confidence: [texts] of the answer.
        wrong: [texts] whether it is.
        describe: given a text's position, what was expected and what was predicted.
    """
    found = np.flatnonzero(wrong)
    surest = found[np.argsort(-confidence[found], kind="stable")][:SHOWN]
    return [Mistake(shown_text(part, int(i)), *describe(int(i)), float(confidence[i])) for i in surest]


def shown_text(part: Part, index: int) -> str:
    """Return a text, or both texts of a pair, cut where it is long."""
    text, pair = part.text(index), part.text_pair(index)
    pieces = [text] if pair is None else [text, pair]
    room = TEXT_CHARACTERS // len(pieces)
    return " | ".join(piece if len(piece) <= room else piece[:room] + "…" for piece in pieces)


def listed(labels: list[Any]) -> str:
    """Return labels as a phrase."""
    return ", ".join(str(label) for label in labels) or "no label"
