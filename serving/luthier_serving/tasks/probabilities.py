"""Logits to probabilities, and the types of both in the description of the API."""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from luthier_serving.tasks.interface import Logits

# Decimals of a probability in an answer: more than a float16 model resolves, in half the bytes.
DECIMALS = 6

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


def by_label(labels: tuple[str, ...], probabilities: list[float]) -> dict[str, float]:
    """Return {label: probability}."""
    return dict(zip(labels, probabilities, strict=True))


def label_type(labels: Iterable[str] | None) -> Any:
    """Return the type of a label in the description of the API: one of these, or a string if they are not known."""
    return str if labels is None else Annotated[str, Field(json_schema_extra={"enum": [*labels]})]
