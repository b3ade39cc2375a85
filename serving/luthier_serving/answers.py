"""What travels back from a revision to the front: plain tuples, cheap to pickle."""

from typing import NamedTuple


class Row(NamedTuple):
    """The answer to one text: probabilities in the order of the labels, or one sentence of what went wrong with it."""

    probabilities: list[float]
    error: str | None = None


class Answer(NamedTuple):
    """The answer to a batch: one row per text, in order; who computed it, and of which version."""

    rows: list[Row]
    labels: tuple[str, ...]
    version: str
    replica: str
