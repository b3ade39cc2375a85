"""Logits to probabilities, and the types of both in the description of the API."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from luthier_serving.answers import Row
from luthier_serving.tasks.interface import Logits, Scored
from luthier_serving.tasks.options import Function, Options

# Decimals of a probability in an answer: more than a float16 model resolves, in half the bytes.
DECIMALS = 6
# A float32 has no more.
SIGNIFICANT_DIGITS = 7

Probability = Annotated[float, Field(ge=0, le=1)]
Probabilities = npt.NDArray[np.float64]


def softmax(logits: Logits) -> Probabilities:
    """Return the probabilities of mutually exclusive labels: [..., labels], which sum to 1."""
    exact = logits.astype(np.float64)
    # Subtracting the largest logit keeps exp() finite (Goodfellow et al., Deep Learning, section 4.1).
    weights = np.exp(exact - exact.max(axis=-1, keepdims=True))
    probabilities: Probabilities = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: Logits) -> Probabilities:
    """Return the probability of each label by itself: [..., labels]."""
    exact = logits.astype(np.float64)
    # exp() of a number that is never positive, for the same reason.
    small = np.exp(-np.abs(exact))
    probabilities: Probabilities = np.where(exact >= 0, 1, small) / (1 + small)
    return probabilities


def apply_function(function: Function, row: Row) -> list[float]:
    """Return what a function makes of the logits of one text: probabilities, or with `none` the logits themselves."""
    logits = np.frombuffer(row.logits, dtype=np.float32)
    if function == "none":
        return [float(f"{logit:.{SIGNIFICANT_DIGITS}g}") for logit in logits]
    scores: list[float] = (softmax if function == "softmax" else sigmoid)(logits).round(DECIMALS).tolist()
    return scores


def scored_labels(labels: Sequence[str], row: Row, options: Options) -> list[Scored]:
    """Return the labels of one text with their scores, the highest first; of equal scores in the model's order."""
    function = options.function_to_apply
    scores: Any = row.values if function is None else apply_function(function, row)
    ranked = sorted(map(Scored, labels, scores), key=lambda each: -each.score)
    return ranked[: options.top_k]


def by_label(labels: Sequence[str], probabilities: list[float], top_k: int | None = None) -> dict[str, float]:
    """Return {label: probability}: all in the model's order, or the `top_k` most probable ones, those first."""
    if top_k is None:
        return dict(zip(labels, probabilities, strict=True))
    ranked = scored_labels(labels, Row(probabilities), Options(top_k=top_k))
    return {each.label: each.score for each in ranked}


def label_type(labels: Iterable[str] | None) -> Any:
    """Return the type of a label in the description of the API: one of these, or a string if they are not known."""
    return str if labels is None else Annotated[str, Field(json_schema_extra={"enum": [*labels]})]
