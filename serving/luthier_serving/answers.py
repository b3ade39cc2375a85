"""What travels between the front and a revision: plain tuples, cheap to pickle."""

from typing import NamedTuple

from luthier_api.training import Task

# What a model reads: a text, or a pair of texts.
Text = str | tuple[str, str]


class Span(NamedTuple):
    """A stretch of the text as the caller sent it.

    Attributes:
        start: its first character.
        end: the character after its last.
        label: position of its label.
        confidence: probability of the label.
    """

    start: int
    end: int
    label: int
    confidence: float


# What a model says of one text: a number for each label, or spans; `tasks` knows what they mean.
Values = list[float] | list[Span]


class Row(NamedTuple):
    """The answer to one text: values, or one sentence of what went wrong with it.

    Attributes:
        refused: whether the caller is to send something else, as opposed to a failure of the model.
    """

    values: Values
    error: str | None = None
    refused: bool = False


class About(NamedTuple):
    """The model that answers.

    Attributes:
        version: in the registry.
        weights: name of the file that the engine loaded.
        pairs: whether it reads pairs of texts.
        threshold: multi-label: the probability from which a label is given.
    """

    version: str
    weights: str
    task: Task
    labels: tuple[str, ...]
    pairs: bool
    threshold: float


class Answer(NamedTuple):
    """The answer to a batch: one row for each text, in order; of which model, and who computed it."""

    rows: list[Row]
    about: About
    replica: str
