"""multi-label: every label whose probability reaches the threshold; none, one or several."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field, conlist

from luthier_api.training import Task
from luthier_serving.answers import ModelInfo, Row
from luthier_serving.tasks.interface import AnswerFields, Form, Logits, Scored, Summary, Word
from luthier_serving.tasks.options import NO_OPTIONS, Options
from luthier_serving.tasks.probabilities import DECIMALS, Probability, by_label, label_type, scored_labels, sigmoid


class MultiLabel:
    """Values: the probability of each label, by itself."""

    name = Task.MULTI_LABEL
    per_token = False
    form: Form = "labels"
    options = frozenset({"top_k", "threshold", "thresholds", "function_to_apply"})
    summary = "Assign any number of labels to one text or several."

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> list[list[float]]:
        """Return the probabilities of each text."""
        probabilities: list[list[float]] = sigmoid(logits).round(DECIMALS).tolist()
        return probabilities

    def result(self, text: str, values: list[float], model: ModelInfo, options: Options = NO_OPTIONS) -> dict[str, Any]:
        """Return the assigned labels, and the probabilities of all labels; with `top_k`, both of those only."""
        probabilities = by_label(model.labels, values, options.top_k)
        threshold = model.threshold if options.threshold is None else options.threshold
        single = options.thresholds or {}
        assigned = [label for label, each in probabilities.items() if each >= single.get(label, threshold)]
        return {"prediction": assigned, "probabilities": probabilities}

    def scored(self, row: Row, model: ModelInfo, options: Options = NO_OPTIONS) -> list[Scored]:
        """Return the labels with their scores, the highest first."""
        return scored_labels(model.labels, row, options)

    def summary_of(self, values: list[float], model: ModelInfo) -> Summary:
        """Return the assigned labels, and the highest probability."""
        return Summary(_assigned(values, model), max(values))

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`."""
        threshold = f"{model.threshold:g}" if model else "the threshold in the artifact's luthier.json"
        described = f"The labels whose probability is at least {threshold}, or what the request asks for."
        each = "The probability of each label by itself, or of the top_k most likely."
        return {
            "prediction": (conlist(label_type(model.labels if model else None)), Field(description=described)),
            "probabilities": (dict[str, Probability], Field(description=each)),
        }


def _assigned(values: list[float], model: ModelInfo) -> list[str]:
    return [label for label, each in zip(model.labels, values, strict=True) if each >= model.threshold]
