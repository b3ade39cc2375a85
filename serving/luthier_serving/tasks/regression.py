"""regression: a number for a text."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from luthier_api.training import Task
from luthier_serving.answers import ModelInfo, Row
from luthier_serving.tasks.interface import AnswerFields, Form, Logits, Scored, Summary, Word
from luthier_serving.tasks.options import NO_OPTIONS, Options
from luthier_serving.tasks.probabilities import SIGNIFICANT_DIGITS, scored_labels


class Regression:
    """Values: the number."""

    name = Task.REGRESSION
    per_token = False
    form: Form = "number"
    options = frozenset({"function_to_apply"})
    summary = "Estimate a number for one text or several."

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> list[list[float]]:
        """Return the number of each text."""
        return [[float(f"{row[0]:.{SIGNIFICANT_DIGITS}g}")] for row in logits]

    def result(self, text: str, values: list[float], model: ModelInfo, options: Options = NO_OPTIONS) -> dict[str, Any]:
        """Return the number."""
        return {"prediction": values[0]}

    def scored(self, row: Row, model: ModelInfo, options: Options = NO_OPTIONS) -> list[Scored]:
        """Return the number under its name."""
        return scored_labels(model.labels, row, options)

    def summary_of(self, values: list[float], model: ModelInfo) -> Summary:
        """Return nothing: a number is no label."""
        return Summary()

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`."""
        return {"prediction": (float, Field(description=model.labels[0] if model else "The number."))}
