"""regression: a number for a text."""

from collections.abc import Sequence
from typing import Any

from luthier_api.training import Task
from luthier_serving.answers import About
from luthier_serving.compute.engines import Logits
from luthier_serving.compute.tokenization import Encoded

# A float32 knows no more than 7 digits.
SIGNIFICANT_DIGITS = 7


class Regression:
    """Values: the number."""

    name = Task.REGRESSION
    per_token = False
    summary = "Estimate a number for one text or several."

    def rows(self, logits: Logits, texts: Sequence[Encoded], about: About) -> list[list[float]]:
        """Return the number of each text."""
        return [[float(f"{row[0]:.{SIGNIFICANT_DIGITS}g}")] for row in logits]

    def result(self, text: str, values: list[float], about: About) -> dict[str, Any]:
        """Return the number."""
        return {"prediction": values[0]}

    def schema(self, about: About | None) -> dict[str, Any]:
        """Return the schema of `result`."""
        return {"prediction": {"type": "number", "description": about.labels[0] if about else "The number."}}
