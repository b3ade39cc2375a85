"""Logits to probabilities."""

from typing import Any

import numpy as np
import numpy.typing as npt

from luthier_serving.compute.engines import Logits

# Digits of a probability in an answer: more than a float16 model knows, and half the bytes.
DIGITS = 6
SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}

Shares = npt.NDArray[np.float64]


def softmax(logits: Logits) -> Shares:
    """Return the probabilities of labels that exclude each other: [..., labels], which sum to 1."""
    exact = logits.astype(np.float64)
    # Subtracting the largest logit keeps exp() finite (Goodfellow et al., Deep Learning, section 4.1).
    weights = np.exp(exact - exact.max(axis=-1, keepdims=True))
    shares: Shares = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(logits: Logits) -> Shares:
    """Return the probability of each label by itself: [..., labels]."""
    exact = logits.astype(np.float64)
    # exp() of what is never positive, for the same reason.
    small = np.exp(-np.abs(exact))
    shares: Shares = np.where(exact >= 0, 1, small) / (1 + small)
    return shares


def by_label(labels: tuple[str, ...], shares: list[float]) -> dict[str, float]:
    """Return {label: probability}."""
    return dict(zip(labels, shares, strict=True))
