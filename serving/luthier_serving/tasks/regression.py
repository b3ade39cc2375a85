"""regression: a number for a text."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from luthier_api.training import Task
from luthier_serving.answers import ModelInfo
from luthier_serving.tasks.interface import AnswerFields, Logits, Summary, Word

# A float32 has no more than 7 significant digits.
SIGNIFICANT_DIGITS = 7


class Regression:
    """Values: the number."""

    name = Task.REGRESSION
    per_token = False
    summary = "Estimate a number for one text or several."

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> list[list[float]]:
        """Return the number of each text."""
        return [[float(f"{row[0]:.{SIGNIFICANT_DIGITS}g}")] for row in logits]

    def result(self, text: str, values: list[float], model: ModelInfo) -> dict[str, Any]:
        """Return the number."""
        return {"prediction": values[0]}

    def summary_of(self, values: list[float], model: ModelInfo) -> Summary:
        """Return nothing: a number is no label."""
        return Summary()

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`."""
        return {"prediction": (float, Field(description=model.labels[0] if model else "The number."))}
