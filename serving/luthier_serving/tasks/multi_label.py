"""multi-label: every label whose probability reaches the threshold; none, one or several."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field, conlist

from luthier_api.training import Task
from luthier_serving.answers import ModelInfo
from luthier_serving.tasks.interface import AnswerFields, Logits, Summary, Word
from luthier_serving.tasks.probabilities import DECIMALS, Probability, by_label, label_type, sigmoid


class MultiLabel:
    """Values: the probability of each label, by itself."""

    name = Task.MULTI_LABEL
    per_token = False
    summary = "Assign any number of labels to one text or several."

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> list[list[float]]:
        """Return the probabilities of each text."""
        probabilities: list[list[float]] = sigmoid(logits).round(DECIMALS).tolist()
        return probabilities

    def result(self, text: str, values: list[float], model: ModelInfo) -> dict[str, Any]:
        """Return the assigned labels, and the probabilities of all labels."""
        return {"prediction": _assigned(values, model), "probabilities": by_label(model.labels, values)}

    def summary_of(self, values: list[float], model: ModelInfo) -> Summary:
        """Return the assigned labels, and the highest probability."""
        return Summary(_assigned(values, model), max(values))

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`."""
        threshold = f"{model.threshold:g}" if model else "the threshold in the artifact's luthier.json"
        described = f"The labels whose probability is at least {threshold}."
        return {
            "prediction": (conlist(label_type(model.labels if model else None)), Field(description=described)),
            "probabilities": (dict[str, Probability], Field(description="The probability of each label, by itself.")),
        }


def _assigned(values: list[float], model: ModelInfo) -> list[str]:
    return [label for label, each in zip(model.labels, values, strict=True) if each >= model.threshold]
