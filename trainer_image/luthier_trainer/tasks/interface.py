"""What the model learns to do: one small module for each task behind one interface.

    readers -> parse -> quality, split -> encode -> prepared data -> train -> measure (often) -> evaluate (once)

A task says how its labels are read, which numbers stand for them, which head and loss learns them and how the result is
judged. Nothing else knows one task from another: adding one adds a module here and a word to `Task` in luthier_api.
Needs no torch, because *prepare* has none; scikit-learn is imported where it measures, because *prepare* needs none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from luthier_api.training import DataFile, Label, Task
from luthier_trainer.formats.prepared import Part
from luthier_trainer.tasks.evaluation import Evaluation

LossName = Literal["cross-entropy", "binary-cross-entropy", "mean-squared-error"]
# As *prepare* knows the label of one example: a word, several words, or a number.
ParsedLabel = str | tuple[str, ...] | float
Floats = npt.NDArray[np.floating[Any]]
IGNORED = -100  # the target of a token that is not judged, as in torch's cross_entropy


@dataclass(frozen=True)
class Predictions:
    """What a model said of one part.

    Attributes:
        logits: [rows, outputs]; a row for each text, or for each judged token where the task is per token.
        targets: [rows], or [rows, outputs] of 0 and 1 for multi-label.
        rows_per_text: [texts] rows of each text, in the order of the part; all 1 unless per token.
        loss: mean over the rows, without class weights and label smoothing.
    """

    logits: Floats
    targets: npt.NDArray[Any]
    rows_per_text: npt.NDArray[np.int64]
    loss: float


class TaskModule(Protocol):
    """The interface.

    Attributes:
        name: the word in the spec.
        auto_class: name of the transformers Auto class that has the head.
        problem_type: transformers' config.problem_type, None where the class has none.
        loss: what is minimized; computed by `losses`.
        per_token: whether the model has an output for each token, not for each text.
        target_type: Arrow type of the target column.
        metrics: names of what `measure` returns, without prefix.
        errors: those of them that are better the smaller they are.
        best_metric: picks the best weights unless the spec says another; with eval_ before it.
        baseline_name: what `baseline` always answers, for people.
        pipeline_tag: the hub's name of the task (https://huggingface.co/tasks).
    """

    name: Task
    auto_class: str
    problem_type: str | None
    loss: LossName
    per_token: bool
    target_type: pa.DataType
    metrics: tuple[str, ...]
    errors: tuple[str, ...]
    best_metric: str
    baseline_name: str
    pipeline_tag: str

    def parse(self, cell: object, file: DataFile) -> ParsedLabel | None:
        """Return a label as read from a cell (text, number, boolean or list); None where there is none.

        Raises:
            ValueError: with a phrase that says what the cell holds instead ("'abc', which is not a number").
        """

    def label_names(self, label: ParsedLabel) -> Iterable[Label]:
        """Return the labels in it: what is counted, mapped and looked up in spec.labels; none for numbers."""

    def renamed(self, label: ParsedLabel, names: Mapping[str, str]) -> ParsedLabel:
        """Return the label with its words replaced by those that `names` has for them."""

    def stratum(self, label: ParsedLabel) -> str:
        """Return what a stratified split keeps the share of."""

    def encode(self, label: ParsedLabel, index: Mapping[Label, int], word_ids: list[int | None] | None) -> Any:
        """Return the target of one example.

        Args:
            label: parsed.
            index: position of each label among the model's outputs.
            word_ids: for tasks per token the word that each token belongs to, None for special tokens.
        """

    def dense_targets(self, part: Part, outputs: int) -> npt.NDArray[Any]:
        """Return all targets of a part as `Predictions.targets`."""

    def measure(self, predictions: Predictions, labels: Sequence[str]) -> dict[str, float]:
        """Return the headline metrics by the names of `metrics`; fast, because every evaluation asks.

        Args:
            predictions: of any part.
            labels: names of the model's outputs; what an entity is, is read from them.
        """

    def baseline(self, train: Part, evaluated: Part, labels: Sequence[str]) -> dict[str, float]:
        """Return metrics of always giving the most frequent training answer, by the names of `metrics`."""

    def evaluate(self, predictions: Predictions, part: Part, labels: Sequence[str], *, seed: int) -> Evaluation:
        """Return everything that the report shows of a final evaluation; the seed is the bootstrap's."""
