"""Describes the data in a quality report, and words the warnings that follow from it.

Pure. `measure` describes the examples before they are tokenized, `with_tokens` adds their lengths; `quality_gates`
judges.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from luthier_artifacts.readers.rows import Reading
from luthier_trainer.formats.quality_report import (
    FileQuality,
    LabelCount,
    Leakage,
    NumberSummary,
    Outliers,
    QualityReport,
    TokenLengths,
)

# Beyond these a practitioner would want to know, though nothing forbids it.
WARN_IMBALANCE_RATIO = 10
WARN_CUT_FRACTION = 0.1
WARN_EVAL_EXAMPLES = 50
WARNINGS_KEPT = 5
_MISSING_WORDS = frozenset({"nan", "<na>", "none", "null", "n/a", "nat"})
# Lengths are spread over orders of magnitude, so that their logarithms are what has quartiles to compare with.
OUTLIER_RANGES = 3
OUTLIER_LEAST_FACTOR = 4
OUTLIERS_SHOWN = 3


def measure(
    files: Sequence[FileQuality],
    examples: Mapping[str, int],
    labels: Mapping[str, LabelCount],
    values: Mapping[str, npt.NDArray[np.float64]],
    *,
    leakage: Leakage,
    scripts: dict[str, float],
    warnings: Sequence[str] = (),
) -> QualityReport:
    """Describe the data as far as it is known before it is tokenized.

    Args:
        files: what each input is like.
        examples: of each part, after the split.
        labels: counts by label, in the order of the model's outputs.
        values: the numbers of each part, for regression.
        leakage: what stands in more than one part.
        scripts: share of letters by script.
        warnings: what else was odd.
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
        warnings=list(warnings),
    )


def with_tokens(report: QualityReport, tokens: dict[str, TokenLengths], outliers: dict[str, Outliers]) -> QualityReport:
    """Return the whole report: with lengths, and the warnings that follow from all of it."""
    whole = report.model_copy(update={"tokens": tokens, "outliers": outliers})
    return whole.model_copy(update={"warnings": _warnings(whole)})


def file_quality(
    name: str,
    *,
    files: int,
    rows: int,
    missing: int,
    reading: Reading,
    duplicates: int,
    texts: int,
    conflicting: int,
) -> FileQuality:
    """Describe one input."""
    return FileQuality(
        name=name,
        files=files,
        rows=rows,
        read_as=list(reading.how),
        malformed=reading.malformed,
        malformed_fraction=reading.malformed / rows,
        faults=reading.faults,
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
    # What was said before the tokens were known.
    found = list(report.warnings)
    if odd := [label for label in report.labels if label.lower() in _MISSING_WORDS]:
        found.append(f"The label {odd[0]!r} may be a missing value that became text; if so, leave its cells empty.")
    for file in report.files:
        if file.malformed:
            found.append(f"{file.malformed} of {file.rows} rows of {file.name} cannot be read and were left out.")
        if file.missing:
            found.append(f"{file.missing} of {file.rows} rows of {file.name} lack text or label and were left out.")
        if file.conflicting_texts:
            found.append(f"{file.conflicting_texts} texts of {file.name} have more than one label.")
    if left_out := report.leakage.left_out_of_train:
        found.append(f"{left_out} training examples were left out because their text is in the evaluation or test set.")
    if left_out := report.leakage.left_out_of_eval:
        found.append(f"{left_out} evaluation examples were left out because their text is in the test set.")
    if report.imbalance_ratio > WARN_IMBALANCE_RATIO:
        found.append(f"The most frequent label has {report.imbalance_ratio:g} times the examples of the rarest.")
    if (cut := report.tokens["train"].cut_fraction) > WARN_CUT_FRACTION:
        found.append(f"{cut:.0%} of the texts are cut at maxLength = {report.tokens['train'].max_length} tokens.")
    if (evaluated := report.examples["eval"]) < WARN_EVAL_EXAMPLES:
        found.append(f"Only {evaluated} examples are evaluated, so the metrics are imprecise.")
    return [warning[:300] for warning in found[:WARNINGS_KEPT]]
