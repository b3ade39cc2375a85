"""text-classification: one label for a text, and the probability of each."""

from collections.abc import Sequence
from typing import Any

from luthier_api.training import Task
from luthier_serving.answers import About
from luthier_serving.compute.engines import Logits
from luthier_serving.compute.tokenization import Encoded
from luthier_serving.tasks.probabilities import DIGITS, SHARE, by_label, softmax


class TextClassification:
    """Values: the probability of each label."""

    name = Task.TEXT_CLASSIFICATION
    per_token = False
    summary = "Classify one text or several."

    def rows(self, logits: Logits, texts: Sequence[Encoded], about: About) -> list[list[float]]:
        """Return the probabilities of each text."""
        found: list[list[float]] = softmax(logits).round(DIGITS).tolist()
        return found

    def result(self, text: str, values: list[float], about: About) -> dict[str, Any]:
        """Return the likeliest label, its probability and those of all."""
        confidence = max(values)
        return {
            "prediction": about.labels[values.index(confidence)],
            "confidence": confidence,
            "probabilities": by_label(about.labels, values),
        }

    def schema(self, about: About | None) -> dict[str, Any]:
        """Return the schema of `result`."""
        known = {"enum": list(about.labels)} if about else {}
        return {
            "prediction": {"type": "string", "description": "The likeliest label.", **known},
            "confidence": {**SHARE, "description": "Its probability."},
            "probabilities": {"type": "object", "additionalProperties": SHARE},
        }
