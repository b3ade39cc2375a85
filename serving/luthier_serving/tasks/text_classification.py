"""text-classification: one label for a text, and the probability of each."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from luthier_api.training import Task
from luthier_serving.answers import ModelInfo, Row
from luthier_serving.tasks.interface import AnswerFields, Form, Logits, Scored, Summary, Word
from luthier_serving.tasks.options import NO_OPTIONS, Options
from luthier_serving.tasks.probabilities import DECIMALS, Probability, by_label, label_type, scored_labels, softmax


class TextClassification:
    """Values: the probability of each label."""

    name = Task.TEXT_CLASSIFICATION
    per_token = False
    form: Form = "label"
    options = frozenset({"top_k", "function_to_apply"})
    summary = "Classify one text or several."

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> list[list[float]]:
        """Return the probabilities of each text."""
        probabilities: list[list[float]] = softmax(logits).round(DECIMALS).tolist()
        return probabilities

    def result(self, text: str, values: list[float], model: ModelInfo, options: Options = NO_OPTIONS) -> dict[str, Any]:
        """Return the most likely label, its probability, and those of all labels, or of the `top_k` most likely."""
        confidence = max(values)
        return {
            "prediction": model.labels[values.index(confidence)],
            "confidence": confidence,
            "probabilities": by_label(model.labels, values, options.top_k),
        }

    def scored(self, row: Row, model: ModelInfo, options: Options = NO_OPTIONS) -> list[Scored]:
        """Return the labels with their scores, the highest first."""
        return scored_labels(model.labels, row, options)

    def summary_of(self, values: list[float], model: ModelInfo) -> Summary:
        """Return the most likely label and its probability."""
        highest = max(values)
        return Summary((model.labels[values.index(highest)],), highest)

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`."""
        described = "The probability of each label, or of the top_k most likely."
        return {
            "prediction": (label_type(model.labels if model else None), Field(description="The most likely label.")),
            "confidence": (Probability, Field(description="Its probability.")),
            "probabilities": (dict[str, Probability], Field(description=described)),
        }
