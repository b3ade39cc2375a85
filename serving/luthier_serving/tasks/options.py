"""What a request may ask of its answer. Applied when the answer is written: the model computes the same for everybody.

`TaskOutput.options` names those that a task has; the protocols read them from requests and refuse the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Function = Literal["softmax", "sigmoid", "none"]
# How labelled words are combined. The model labels a word by its first token, so `simple` and `first` are the same.
Aggregation = Literal["none", "simple", "first"]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one request; None is what the task does by itself.

    Attributes:
        top_k: so many of the most probable labels at most.
        threshold: multi-label: a label is assigned from this probability on, instead of from the model's own.
        thresholds: the same for single labels.
        function_to_apply: what makes scores of the logits, instead of the task's own function.
        aggregation_strategy: labels of words: `none` for each word by itself, else entities.
        ignore_labels: labels of words that are left out, instead of O.
        truncate: whether a text that is too long for the model is cut; if not, it is refused.
    """

    top_k: int | None = None
    threshold: float | None = None
    thresholds: Mapping[str, float] | None = None
    function_to_apply: Function | None = None
    aggregation_strategy: Aggregation | None = None
    ignore_labels: frozenset[str] | None = None
    truncate: bool = True

    def given(self) -> list[str]:
        """Return the names of those that are given and that not every task has."""
        return [name for name in TASK_OPTIONS if getattr(self, name) is not None]


TASK_OPTIONS = ("top_k", "threshold", "thresholds", "function_to_apply", "aggregation_strategy", "ignore_labels")
NO_OPTIONS = Options()
