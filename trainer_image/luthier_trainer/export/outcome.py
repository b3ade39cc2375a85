"""What became of each format that was asked for. Pure data."""

from dataclasses import dataclass, field

from luthier_api.training import ExportFormat


@dataclass(frozen=True)
class ExportOutcome:
    """What became of one format.

    Attributes:
        format: as in spec.export.
        shipped: whether the artifact holds it.
        difference: largest difference of any logit from the model's, where it was measured.
        loss: how much worse the best-model metric is than the model's, where it was measured.
        texts: on how many texts that was.
        size_bytes: of its files.
        speedup: how many times as fast as fp32 it computed, on the CPUs of the run.
        message: why it was not shipped.
        metrics: what it scores, by the names of `metric_names`; those of fp32 are the trained model's.
    """

    format: ExportFormat
    shipped: bool
    difference: float | None = None
    loss: float | None = None
    texts: int | None = None
    size_bytes: int | None = None
    speedup: float | None = None
    message: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
