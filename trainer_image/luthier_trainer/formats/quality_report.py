"""What the data is like: quality.json in the artifact, and the warnings that follow from it.

Pure. `measure` describes the examples before they are tokenized, `with_tokens` adds their lengths; `limits` judges.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from luthier_api.base import Document

# Beyond these a practitioner would want to know, though nothing forbids it.
WARN_IMBALANCE_RATIO = 10
WARN_CUT_FRACTION = 0.1
WARN_EVAL_EXAMPLES = 50
WARNINGS_KEPT = 5
# Lengths are spread over orders of magnitude, so that their logarithms are what has quartiles to compare with.
OUTLIER_RANGES = 3
OUTLIER_LEAST_FACTOR = 4
OUTLIERS_SHOWN = 3

_Fraction = Annotated[float, Field(ge=0, le=1)]


class FileQuality(Document):
    """What one input, of one file or several, is like before the split.

    Attributes:
        missing: rows without text or label.
        duplicates: rows that repeat the text and the label of an earlier one, dropped or not.
        texts: different texts.
        conflicting_texts: those of them that have more than one label.
    """

    name: str
    files: int = 1
    rows: int
    missing: int
    missing_fraction: _Fraction
    duplicates: int
    duplicate_fraction: _Fraction
    texts: int
    conflicting_texts: int


class Leakage(Document):
    """Texts that stand in more than one part.

    Attributes:
        evaluated: different texts of evaluation and test files of their own.
        leaked: those of them that are in the training file too.
        left_out_of_train: training examples that went because their text is evaluated or tested.
        left_out_of_eval: evaluation examples that went because their text is tested.
    """

    evaluated: int = 0
    leaked: int = 0
    left_out_of_train: int = 0
    left_out_of_eval: int = 0


class TokenLengths(Document):
    """How long the examples of a part are in tokens, special tokens included, before they are cut."""

    mean: float
    min: int
    p50: int
    p90: int
    p95: int
    p99: int
    max: int
    cut: int
    cut_fraction: _Fraction
    max_length: int


class Outliers(Document):
    """Examples of a part that are far shorter or longer than the others.

    The rule is Tukey's, on logarithms of lengths in tokens: further from the middle half than three times its width,
    and at least a factor of four.

    Attributes:
        shorter_than, longer_than: where that begins.
        short, long: examples beyond.
        places: of the first few.
    """

    shorter_than: int
    longer_than: int
    short: int
    long: int
    places: list[str]


class NumberSummary(Document):
    """How the numbers of a part are spread, for regression."""

    min: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    max: float
    mean: float
    std: float


class LabelCount(Document):
    """How often a label stands in each part; for token-classification in words, else in examples."""

    train: int
    eval: int
    test: int = 0

    @property
    def total(self) -> int:
        """All parts together."""
        return self.train + self.eval + self.test


class QualityReport(Document):
    """quality.json.

    Attributes:
        files: each input.
        examples: of each part.
        labels: how often each stands in each part; empty for regression.
        numbers: of each part, for regression.
        leakage: texts in more than one part.
        scripts: share of the letters of all texts that belongs to each script.
        tokens, outliers: of each part.
    """

    files: list[FileQuality]
    examples: dict[str, int]
    labels: dict[str, LabelCount]
    imbalance_ratio: float
    numbers: dict[str, NumberSummary] = Field(default={})
    leakage: Leakage
    scripts: dict[str, float]
    tokens: dict[str, TokenLengths] = Field(default={})
    outliers: dict[str, Outliers] = Field(default={})
    warnings: list[str] = Field(default=[])


def measure(
    files: Sequence[FileQuality],
    examples: Mapping[str, int],
    labels: Mapping[str, LabelCount],
    values: Mapping[str, npt.NDArray[np.float64]],
    *,
    leakage: Leakage,
    scripts: dict[str, float],
) -> QualityReport:
    """Describe the data as far as it is known before it is tokenized.

    Args:
        files: what each input is like.
        examples: of each part, after the split.
        labels: counts by label, in the order of the model's outputs.
        values: the numbers of each part, for regression.
        leakage: what stands in more than one part.
        scripts: share of letters by script.
    """
    totals = [count.total for count in labels.values()]
    return QualityReport(
        files=list(files),
        examples=dict(examples),
        labels=dict(labels),
        imbalance_ratio=round(max(totals) / max(1, min(totals)), 3) if totals else 1.0,
        numbers={part: _number_summary(each) for part, each in values.items() if len(each)},
        leakage=leakage,
        scripts=scripts,
    )


def with_tokens(report: QualityReport, tokens: dict[str, TokenLengths], outliers: dict[str, Outliers]) -> QualityReport:
    """Return the whole report: with lengths, and the warnings that follow from all of it."""
    whole = report.model_copy(update={"tokens": tokens, "outliers": outliers})
    return whole.model_copy(update={"warnings": _warnings(whole)})


def file_quality(
    name: str, *, files: int, rows: int, missing: int, duplicates: int, texts: int, conflicting: int
) -> FileQuality:
    """Describe one input."""
    return FileQuality(
        name=name,
        files=files,
        rows=rows,
        missing=missing,
        missing_fraction=missing / rows,
        duplicates=duplicates,
        duplicate_fraction=duplicates / rows,
        texts=texts,
        conflicting_texts=conflicting,
    )


def token_lengths(lengths: npt.ArrayLike, max_length: int) -> TokenLengths:
    """Describe how long examples are, given each one's number of tokens before it is cut."""
    ordered = np.sort(np.asarray(lengths))

    def percentile(share: float) -> int:
        return int(ordered[min(len(ordered) - 1, int(share * len(ordered)))])

    cut = int((ordered > max_length).sum())
    return TokenLengths(
        mean=round(float(ordered.mean()), 1),
        min=int(ordered[0]),
        p50=percentile(0.5),
        p90=percentile(0.9),
        p95=percentile(0.95),
        p99=percentile(0.99),
        max=int(ordered[-1]),
        cut=cut,
        cut_fraction=round(cut / len(ordered), 4),
        max_length=max_length,
    )


def length_limits(lengths: npt.ArrayLike) -> tuple[int, int]:
    """Return the number of tokens below which, and that above which, an example is an outlier; see `Outliers`."""
    low, high = np.quantile(np.asarray(lengths), [0.25, 0.75]).tolist()
    # A distance of logarithms is a ratio.
    ratio = max((high / low) ** OUTLIER_RANGES, OUTLIER_LEAST_FACTOR)
    return math.ceil(low / ratio), math.floor(high * ratio)


def _number_summary(values: npt.NDArray[np.float64]) -> NumberSummary:
    names = ("min", "p5", "p25", "p50", "p75", "p95", "max")
    quantiles = np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]).tolist()
    return NumberSummary(**dict(zip(names, quantiles, strict=True)), mean=float(values.mean()), std=float(values.std()))


def _warnings(report: QualityReport) -> list[str]:
    found = []
    for file in report.files:
        if file.missing:
            found.append(f"{file.missing} of {file.rows} rows of {file.name} lack text or label and were left out.")
        if file.conflicting_texts:
            found.append(f"{file.conflicting_texts} texts of {file.name} stand there with more than one label.")
    if left_out := report.leakage.left_out_of_train:
        found.append(f"{left_out} training examples were left out because their text is in the evaluation or test set.")
    if left_out := report.leakage.left_out_of_eval:
        found.append(f"{left_out} evaluation examples were left out because their text is in the test set.")
    if report.imbalance_ratio > WARN_IMBALANCE_RATIO:
        found.append(f"The most frequent label has {report.imbalance_ratio:g} times the examples of the rarest.")
    if (cut := report.tokens["train"].cut_fraction) > WARN_CUT_FRACTION:
        found.append(f"{cut:.0%} of the texts are cut at maxLength = {report.tokens['train'].max_length} tokens.")
    if (evaluated := report.examples["eval"]) < WARN_EVAL_EXAMPLES:
        found.append(f"Only {evaluated} examples are evaluated, so the metrics are coarse.")
    return [warning[:300] for warning in found[:WARNINGS_KEPT]]
