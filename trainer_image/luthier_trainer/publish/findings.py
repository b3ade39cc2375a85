"""What a training found out: what the report, the card, metrics.json and the manifest are written from. Pure data."""

from dataclasses import dataclass
from typing import Any

from luthier_api.documents import Padding, ReferenceDocument
from luthier_trainer.export.outcome import ExportOutcome
from luthier_trainer.tasks.evaluation import Evaluation


@dataclass(frozen=True)
class Findings:
    """What the training found out.

    Attributes:
        metrics: by the names of `metric_names`.
        missed_gates: a sentence for each.
        evaluation: of the evaluation split, which selected the model.
        test: of the test split, if there is one.
        history: what the Trainer logged.
        steps: optimizer steps done.
        best_step: the step whose weights were kept.
        device: what it ran on.
        precision: fp32, fp16 or bf16.
        exports: what became of each format.
        padding: where batches of the model are filled up.
        reference: what the evaluation split looks like, for the server; none where nothing was evaluated.
        seconds: time by part of the run.
    """

    metrics: dict[str, float]
    missed_gates: list[str]
    evaluation: Evaluation
    test: Evaluation | None
    history: list[dict[str, Any]]
    steps: int
    best_step: int | None
    device: str
    precision: str
    exports: list[ExportOutcome]
    seconds: dict[str, float]
    padding: Padding = "right"
    reference: ReferenceDocument | None = None
