"""How far two revisions agree on one text: by what they answer, whatever the order of their labels. Pure.

Labels are compared by name, numbers within a tolerance, lists of labels as sets, and spans by their F1.
"""

from typing import Any, NamedTuple

from luthier_serving.answers import Answer, Text
from luthier_serving.tasks import OUTPUTS

# Numbers agree if they differ by no more than this share of the larger one, or by this much.
TOLERANCE = 0.05
_MAX_LABEL = 60


class Agreement(NamedTuple):
    """How an answer agrees with that of the stable revision.

    Attributes:
        share: 0 to 1; the mean over the texts of the request.
        confidence_shift: difference of the confidence in the predicted label, 0 to 1, where the task has one.
        flip: "from -> to" of the first text whose label is another.
    """

    share: float
    confidence_shift: float
    flip: str | None


def compare(texts: list[Text], stable: Answer, other: Answer) -> Agreement:
    """Return how far two answers to the same texts agree. A text that only one could answer is a disagreement."""
    shares, shifts, flip = [], [], None
    for text, one, two in zip(texts, stable.rows, other.rows, strict=True):
        if one.error is not None or two.error is not None:
            shares.append(float(one.error == two.error))
            continue
        first = text if isinstance(text, str) else text[0]
        before = OUTPUTS[stable.model.task].result(first, one.values, stable.model)
        after = OUTPUTS[other.model.task].result(first, two.values, other.model)
        share = _share(before["prediction"], after["prediction"])
        shares.append(share)
        shifts.append(abs(before.get("confidence", 0.0) - after.get("confidence", 0.0)))
        if share < 1 and flip is None and isinstance(before["prediction"], str):
            flip = f"{_short(before['prediction'])} -> {_short(after['prediction'])}"
    return Agreement(sum(shares) / len(shares), sum(shifts) / len(shifts) if shifts else 0.0, flip)


def _share(before: Any, after: Any) -> float:
    if isinstance(before, float) and isinstance(after, float):
        return float(abs(before - after) <= TOLERANCE * max(1.0, abs(before), abs(after)))
    if isinstance(before, list) and isinstance(after, list):
        one, two = _members(before), _members(after)
        if not one and not two:
            return 1.0
        if (before and isinstance(before[0], str)) or (after and isinstance(after[0], str)):
            return float(one == two)
        return 2 * len(one & two) / (len(one) + len(two))
    return float(before == after)


def _members(values: list[Any]) -> set[Any]:
    return {(each["label"], each["start"], each["end"]) if isinstance(each, dict) else each for each in values}


def _short(label: Any) -> str:
    text = str(label)
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
