"""Whether the data keeps the limits of spec.dataset.quality: an ordered list of judgements, each one sentence.

Judges a report alone, so that prepared data which was found, not made, is judged by the limits of today. What the
report does not say yet, or has no meaning for the task, passes. Pure.
"""

from collections.abc import Callable

from luthier_api.training import Quality
from luthier_trainer.data.labels import LABELS_SHOWN, and_more, quoted
from luthier_trainer.formats.quality_report import QualityReport
from luthier_trainer.runtime.errors import InvalidData

# Counts are compared, not their quotients: 1 of 10 as a float is more than the decimal 0.1.


def check_gates(report: QualityReport, limits: Quality) -> None:
    """Judge a report.

    Raises:
        InvalidData: naming the first limit that is missed, what was found and what to do.
    """
    for judge in _JUDGES:
        if sentence := judge(report, limits):
            raise InvalidData(sentence)


def _malformed(report: QualityReport, limits: Quality) -> str | None:
    for file in report.files:
        if file.malformed > limits.max_malformed_fraction * file.rows:
            return (
                f"{file.malformed} of {file.rows} rows of {file.name} cannot be read, which is more than "
                f"quality.maxMalformedFraction = {limits.max_malformed_fraction} allows. The first: "
                f"{' '.join(file.faults)}"
            )
    return None


def _missing(report: QualityReport, limits: Quality) -> str | None:
    for file in report.files:
        if file.missing > limits.max_missing_fraction * file.rows:
            return (
                f"{file.missing} of {file.rows} rows of {file.name} have no text or no label, which is more than "
                f"quality.maxMissingFraction = {limits.max_missing_fraction} allows."
            )
    return None


def _duplicates(report: QualityReport, limits: Quality) -> str | None:
    for file in report.files:
        if file.duplicates > limits.max_duplicate_fraction * file.rows:
            return (
                f"{file.duplicates} of {file.rows} rows of {file.name} repeat another row, which is more than "
                f"quality.maxDuplicateFraction = {limits.max_duplicate_fraction} allows."
            )
    return None


def _conflicts(report: QualityReport, limits: Quality) -> str | None:
    for file in report.files:
        if file.conflicting_texts > limits.max_conflicting_fraction * file.texts:
            return (
                f"{file.conflicting_texts} of {file.texts} texts of {file.name} have more than one label, which is "
                f"more than quality.maxConflictingFraction = {limits.max_conflicting_fraction} allows."
            )
    return None


def _leaks(report: QualityReport, limits: Quality) -> str | None:
    leakage = report.leakage
    if leakage.leaked > limits.max_leakage_fraction * leakage.evaluated:
        return (
            f"{leakage.leaked} of {leakage.evaluated} texts for evaluation and test are also in the training file, "
            f"which is more than quality.maxLeakageFraction = {limits.max_leakage_fraction} allows."
        )
    return None


def _rare(report: QualityReport, limits: Quality) -> str | None:
    least = limits.min_examples_per_label
    rare = [label for label, count in report.labels.items() if count.total < least]
    if not rare:
        return None
    shown = ", ".join(f"{label!r} has {report.labels[label].total}" for label in rare[:LABELS_SHOWN])
    return (
        f"Each label needs at least {least} examples (quality.minExamplesPerLabel), and {shown}{and_more(rare)}; add "
        "examples, or remove these rows."
    )


def _imbalance(report: QualityReport, limits: Quality) -> str | None:
    ratio = limits.max_imbalance_ratio
    if ratio is None or not report.labels:
        return None
    totals = {label: count.total for label, count in report.labels.items()}
    most, least = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
    if totals[most] <= ratio * totals[least]:
        return None
    return (
        f"The label {most!r} has {totals[most]} examples and {least!r} has {totals[least]}, a ratio of "
        f"{report.imbalance_ratio:g}, which is more than quality.maxImbalanceRatio = {ratio} allows."
    )


def _untrained(report: QualityReport, limits: Quality) -> str | None:
    untrained = [label for label, count in report.labels.items() if count.train == 0]
    if not untrained:
        return None
    return (
        f"The labels {quoted(untrained)} are only among the examples for evaluation, so they cannot be learned; add "
        "training examples."
    )


def _truncated(report: QualityReport, limits: Quality) -> str | None:
    cut = sum(tokens.cut for tokens in report.tokens.values())
    examples = sum(report.examples[part] for part in report.tokens)
    if cut <= limits.max_cut_fraction * examples:
        return None
    return (
        f"{cut} of {examples} texts are cut at preprocessing.maxLength, which is more than quality.maxCutFraction = "
        f"{limits.max_cut_fraction} allows; raise maxLength, or shorten the texts."
    )


_JUDGES: tuple[Callable[[QualityReport, Quality], str | None], ...] = (
    *(_malformed, _missing, _duplicates, _conflicts, _leaks),
    *(_rare, _imbalance, _untrained),
    _truncated,
)
