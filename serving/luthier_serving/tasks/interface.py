"""The interface of a task: what it is given, and what it returns. Below `compute`, which produces the former."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from luthier_api.training import Task
from luthier_serving.answers import ModelInfo, Row, Values
from luthier_serving.tasks.options import NO_OPTIONS, Options

Logits = npt.NDArray[np.float32]
# {field of the answer: (its type, its pydantic.Field)}, as `pydantic.create_model` takes them.
AnswerFields = dict[str, tuple[Any, Any]]
# What a text gets: one of the labels, any number of them, a number, or labelled parts of it.
Form = Literal["label", "labels", "number", "entities"]


class Word(NamedTuple):
    """A word of a text: its first token, and its characters in the caller's text, from `start` to before `end`."""

    token: int
    start: int
    end: int


class Scored(NamedTuple):
    """A label and its score.

    Attributes:
        label: one of the model's; of a number, its name.
        score: probability of the label, or what `function_to_apply` makes of its logit; or the number.
        start: of a part of the text, its first character.
        end: of a part of the text, the character after its last.
    """

    label: str
    score: float
    start: int = 0
    end: int = 0


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
        form: what a text gets.
        options: names of the options that it has.
        summary: what it does with a text, for the description of the API.
    """

    name: Task
    per_token: bool
    form: Form
    options: frozenset[str]
    summary: str

    def decode(self, logits: Logits, words: Sequence[Sequence[Word]], model: ModelInfo) -> Sequence[Values]:
        """Return the values of each text of a batch.

        Args:
            logits: [texts, labels], or [texts, tokens, labels] for a task per token; finite.
            words: the words of each text, for a task per token.
            model: the model that computed the logits.
        """

    def result(self, text: str, values: Any, model: ModelInfo, options: Options = NO_OPTIONS) -> dict[str, Any]:
        """Return the task's part of the answer to one text; `prediction` comes first.

        Args:
            text: as the caller sent it.
            values: what `decode` returned for it.
            model: the model that computed them.
            options: what the request asks for.
        """

    def scored(self, row: Row, model: ModelInfo, options: Options = NO_OPTIONS) -> list[Scored]:
        """Return labels with their scores: the highest score first, or in the order of the text for parts of it."""

    def summary_of(self, values: Any, model: ModelInfo) -> Summary:
        """Return what can be counted of the answer to one text."""

    def fields(self, model: ModelInfo | None) -> AnswerFields:
        """Return the fields of `result`, for the description of the API; of this model, if one is given."""
