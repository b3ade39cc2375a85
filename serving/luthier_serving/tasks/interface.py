"""The interface of a task."""

from collections.abc import Sequence
from typing import Any, Protocol

from luthier_api.training import Task
from luthier_serving.answers import About, Values
from luthier_serving.compute.engines import Logits
from luthier_serving.compute.tokenization import Encoded


class TaskOutput(Protocol):
    """What the logits of a task mean.

    Attributes:
        name: the word in luthier.json.
        per_token: whether the model has logits for each token, not for each text.
        summary: what it does with a text, for the description of the API.
    """

    name: Task
    per_token: bool
    summary: str

    def rows(self, logits: Logits, texts: Sequence[Encoded], about: About) -> Sequence[Values]:
        """Return the values of each text of a batch.

        Args:
            logits: [texts, labels], or [texts, tokens, labels] for a task per token; finite.
            texts: what was computed, in order.
            about: the model.
        """

    def result(self, text: str, values: Any, about: About) -> dict[str, Any]:
        """Return what the answer says between the text and the version; `prediction` first.

        Args:
            text: as the caller sent it.
            values: what `rows` returned for it.
            about: the model.
        """

    def schema(self, about: About | None) -> dict[str, Any]:
        """Return {field: JSON schema} of `result`, of this model where it is known."""
