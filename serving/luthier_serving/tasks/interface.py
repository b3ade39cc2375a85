"""The interface of a task: what it is given, and what it returns. Below `compute`, which produces the former."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from luthier_api.training import Task
from luthier_serving.answers import ModelInfo, Values

Logits = npt.NDArray[np.float32]
# {field of the answer: (its type, its pydantic.Field)}, as `pydantic.create_model` takes them.
AnswerFields = dict[str, tuple[Any, Any]]


class Word(NamedTuple):
    """A word of a text: its first token, and its characters in the caller's text, from `start` to before `end`."""

    token: int
    start: int
    end: int


class Summary(NamedTuple):
    """What can be counted of an answer; None where the task has no labels for a whole text.

    Attributes:
        labels: what was predicted, possibly nothing.
        confidence: the probability of the likeliest label.
    """

    labels: Sequence[str] | None = None
    confidence: float | None = None


class TaskOutput(Protocol):
    """What the logits of a task mean.

    Attributes:
        name: its name in luthier.json.
        per_token: whether the model returns logits for each token, not for each text.
        summary: what it does with a text, for the description of the API.
    """

    name: Task
    per_token: bool
    summary: str

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> Sequence[Values]:
        """Return the values of each text of a batch.

        Args:
            logits: [texts, labels], or [texts, tokens, labels] for a task per token; finite.
            words: the words of each text, for a task per token.
            model: the model that computed the logits.
        """

    def result(self, text: str, values: Any, model: ModelInfo) -> dict[str, Any]:
        """Return the task's part of the answer to one text; `prediction` comes first.

        Args:
            text: as the caller sent it.
            values: what `decode` returned for it.
            model: the model that computed them.
        """

    def summary_of(self, values: Any, model: ModelInfo) -> Summary:
        """Return what can be counted of the answer to one text."""

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`, for the description of the API; of this model, if one is given."""
