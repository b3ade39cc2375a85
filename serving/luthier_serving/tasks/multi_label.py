"""multi-label: every label whose probability reaches the threshold; none, one or several."""

from collections.abc import Sequence
from typing import Any

from luthier_api.training import Task
from luthier_serving.answers import About
from luthier_serving.compute.engines import Logits
from luthier_serving.compute.tokenization import Encoded
from luthier_serving.tasks.probabilities import DIGITS, SHARE, by_label, sigmoid


class MultiLabel:
    """Values: the probability of each label, by itself."""

    name = Task.MULTI_LABEL
    per_token = False
    summary = "Find the labels of one text or several."

    def rows(self, logits: Logits, texts: Sequence[Encoded], about: About) -> list[list[float]]:
        """Return the probabilities of each text."""
        found: list[list[float]] = sigmoid(logits).round(DIGITS).tolist()
        return found

    def result(self, text: str, values: list[float], about: About) -> dict[str, Any]:
        """Return the labels that are given, and the probabilities of all."""
        given = [label for label, share in zip(about.labels, values, strict=True) if share >= about.threshold]
        return {"prediction": given, "probabilities": by_label(about.labels, values)}

    def schema(self, about: About | None) -> dict[str, Any]:
        """Return the schema of `result`."""
        known = {"enum": list(about.labels)} if about else {}
        least = f"at least {about.threshold:g}" if about else "at least the threshold in luthier.json"
        return {
            "prediction": {
                "type": "array",
                "items": {"type": "string", **known},
                "description": f"The labels whose probability is {least}.",
            },
            "probabilities": {"type": "object", "additionalProperties": SHARE},
        }
