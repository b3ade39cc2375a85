"""What the data is like, and whether it keeps the limits of spec.dataset.quality.

`measure` makes the report (quality.json in the artifact), `check_gates` judges a report. Judging needs only the report,
so that prepared data which was found, not made, is judged by the limits of today. Pure.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from luthier_api.base import Document
from luthier_api.training import Quality
from luthier_trainer.cleaning import Cleaned, Example
from luthier_trainer.errors import InvalidData

# Beyond these a practitioner would want to know, though nothing forbids it.
WARN_IMBALANCE_RATIO = 10
WARN_CUT_FRACTION = 0.1
WARN_EVAL_EXAMPLES = 50
LABELS_SHOWN = 10
WARNINGS_KEPT = 5

_Fraction = Annotated[float, Field(ge=0, le=1)]


class FileQuality(Document):
    """What one file is like before the split."""

    name: str
    rows: int
    missing: int
    missing_fraction: _Fraction
    duplicates: int
    duplicate_fraction: _Fraction
    conflicting_texts: int


class TokenLengths(Document):
    """How long the texts are in tokens, special tokens included, before they are cut."""

    mean: float
    p50: int
    p90: int
    p95: int
    p99: int
    max: int
    cut_fraction: _Fraction
    max_length: int


class LabelCount(Document):
    """How often a label stands in each part."""

    train: int
    eval: int


class QualityReport(Document):
    """quality.json."""

    files: list[FileQuality]
    labels: dict[str, LabelCount]
    imbalance_ratio: float
    leaked: int
    tokens: dict[str, TokenLengths]
    warnings: list[str]

    def total(self, label: str) -> int:
        """Examples of a label in both parts."""
        return self.labels[label].train + self.labels[label].eval


def order_labels(wanted: Sequence[str] | None, files: Sequence[Cleaned]) -> list[str]:
    """Return the labels in the order of the model's outputs: those of the spec, or those of the data, sorted.

    Raises:
        InvalidData: if there are fewer than two, or the data has one that the spec does not name.
    """
    found: dict[str, tuple[Cleaned, Example]] = {}
    for file in files:
        for example in file.examples:
            found.setdefault(example.label, (file, example))
    if wanted:
        for label, (file, example) in found.items():
            if label not in wanted:
                raise InvalidData(
                    f"{file.table.place(example.number)} has the label {label!r}, which spec.labels does not name; it "
                    f"names {_listed(list(wanted))}."
                )
    if len(found) < 2:
        label, (file, _) = next(iter(found.items()))
        raise InvalidData(
            f"{file.table.name} holds only one label, {label!r}; a classifier needs at least two. Check that "
            "labelColumn is the right column."
        )
    return list(wanted) if wanted else sorted(found)


def measure(
    files: Sequence[Cleaned],
    labels: Sequence[str],
    train: Sequence[Example],
    held_out: Sequence[Example],
    *,
    leaked: int,
    lengths: dict[str, TokenLengths],
) -> QualityReport:
    """Describe the data.

    Args:
        files: the cleaned files.
        labels: all labels, in order.
        train: examples to learn from, after the split.
        held_out: examples to evaluate on.
        leaked: training examples that were left out because their text is evaluated.
        lengths: token lengths by part.
    """
    counts = {"train": Counter(e.label for e in train), "eval": Counter(e.label for e in held_out)}
    per_label = {label: LabelCount(train=counts["train"][label], eval=counts["eval"][label]) for label in labels}
    totals = [count.train + count.eval for count in per_label.values()]
    ratio = max(totals) / max(1, min(totals))
    report = QualityReport(
        files=[_file_quality(file) for file in files],
        labels=per_label,
        imbalance_ratio=round(ratio, 3),
        leaked=leaked,
        tokens=lengths,
        warnings=[],
    )
    return report.model_copy(update={"warnings": _warnings(report, len(held_out))})


def check_gates(report: QualityReport, limits: Quality) -> None:
    """Judge a report.

    Raises:
        InvalidData: naming the first limit that is missed, what was found and what to do.
    """
    for file in report.files:
        # Counts, not the quotients: 1 of 10 as a float is more than the decimal 0.1.
        if file.missing > limits.max_missing_fraction * file.rows:
            raise InvalidData(
                f"{file.missing} of {file.rows} rows of {file.name} have no text or no label, which is more than "
                f"quality.maxMissingFraction = {limits.max_missing_fraction} allows."
            )
        if file.duplicates > limits.max_duplicate_fraction * file.rows:
            raise InvalidData(
                f"{file.duplicates} of {file.rows} rows of {file.name} repeat another row, which is more than "
                f"quality.maxDuplicateFraction = {limits.max_duplicate_fraction} allows."
            )
    rare = [label for label in report.labels if report.total(label) < limits.min_examples_per_label]
    if rare:
        shown = ", ".join(f"{label!r} has {report.total(label)}" for label in rare[:LABELS_SHOWN])
        raise InvalidData(
            f"Each label needs at least {limits.min_examples_per_label} examples (quality.minExamplesPerLabel), and "
            f"{shown}{_more(rare)}; add examples, or remove these rows."
        )
    ratio = limits.max_imbalance_ratio
    most, least = max(report.labels, key=report.total), min(report.labels, key=report.total)
    if ratio is not None and report.total(most) > ratio * report.total(least):
        raise InvalidData(
            f"The label {most!r} has {report.total(most)} examples and {least!r} has {report.total(least)}, a ratio of "
            f"{report.imbalance_ratio:g}, which is more than quality.maxImbalanceRatio = {ratio} allows."
        )
    untrained = [label for label, count in report.labels.items() if count.train == 0]
    if untrained:
        raise InvalidData(
            f"The labels {_listed(untrained)} are only among the examples for evaluation, so they cannot be learned; "
            "add training examples."
        )


def token_lengths(lengths: Sequence[int], max_length: int) -> TokenLengths:
    """Describe how long the texts are, given each one's number of tokens before it is cut."""
    ordered = sorted(lengths)

    def percentile(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return TokenLengths(
        mean=round(sum(ordered) / len(ordered), 1),
        p50=percentile(0.5),
        p90=percentile(0.9),
        p95=percentile(0.95),
        p99=percentile(0.99),
        max=ordered[-1],
        cut_fraction=round(sum(length > max_length for length in ordered) / len(ordered), 4),
        max_length=max_length,
    )


def _file_quality(file: Cleaned) -> FileQuality:
    rows = len(file.table.rows)
    return FileQuality(
        name=file.table.name,
        rows=rows,
        missing=file.missing,
        missing_fraction=file.missing / rows,
        duplicates=file.duplicates,
        duplicate_fraction=file.duplicates / rows,
        conflicting_texts=file.conflicting,
    )


def _warnings(report: QualityReport, held_out: int) -> list[str]:
    found = []
    for file in report.files:
        if file.missing:
            found.append(f"{file.missing} of {file.rows} rows of {file.name} lack text or label and were left out.")
        if file.conflicting_texts:
            found.append(f"{file.conflicting_texts} texts of {file.name} stand there with more than one label.")
    if report.leaked:
        found.append(f"{report.leaked} training examples were left out because their text is in the evaluation set.")
    if report.imbalance_ratio > WARN_IMBALANCE_RATIO:
        found.append(f"The most frequent label has {report.imbalance_ratio:g} times the examples of the rarest.")
    if (cut := report.tokens["train"].cut_fraction) > WARN_CUT_FRACTION:
        found.append(f"{cut:.0%} of the texts are cut at maxLength = {report.tokens['train'].max_length} tokens.")
    if held_out < WARN_EVAL_EXAMPLES:
        found.append(f"Only {held_out} examples are evaluated, so the metrics are coarse.")
    return [warning[:300] for warning in found[:WARNINGS_KEPT]]


def _listed(labels: list[str]) -> str:
    return ", ".join(repr(label) for label in labels[:LABELS_SHOWN]) + _more(labels)


def _more(labels: list[str]) -> str:
    return f" and {len(labels) - LABELS_SHOWN} more" if len(labels) > LABELS_SHOWN else ""
