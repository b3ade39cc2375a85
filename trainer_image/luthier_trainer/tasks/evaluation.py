"""What a final evaluation found, task by task the same types, so that report and metrics.json know no task.

A field that has no meaning for a task is empty. Pure data.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LabelReport:
    """How well one label is distinguished from the others."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class CalibrationBin:
    """Answers of about one confidence: their number, mean confidence and share that is right."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Whether 80 % sure is right 80 % of the time. `ece`: expected calibration error (Naeini et al., 2015)."""

    ece: float
    bins: list[CalibrationBin]


@dataclass(frozen=True)
class Curve:
    """A line: points (x, y) in [0, 1] and the area under it."""

    label: str
    points: list[tuple[float, float]]
    area: float


@dataclass(frozen=True)
class Mistake:
    """An answer that is wrong, and how sure the model was (for numbers: how far off)."""

    text: str
    expected: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """A final evaluation.

    Attributes:
        metrics: headline metrics, names without prefix.
        intervals: 95 % bootstrap interval of each.
        resamples: how often the texts were drawn for them.
        labels: scores of each label.
        entities: scores of each kind of entity, where words are labelled.
        confusion: rows are what is true, columns what was predicted; empty where labels do not exclude each other.
        calibration: of the answers' confidences.
        roc, precision_recall: a curve for each label.
        mistakes: the most confident ones first.
        scatter: (true, predicted) of numbers, at most a thousand.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    resamples: int = 0
    labels: list[LabelReport] = field(default_factory=list)
    entities: list[LabelReport] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    calibration: Calibration | None = None
    roc: list[Curve] = field(default_factory=list)
    precision_recall: list[Curve] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    scatter: list[tuple[float, float]] = field(default_factory=list)
