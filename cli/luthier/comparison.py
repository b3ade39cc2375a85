"""Two versions beside each other: what was asked for, on which data, with what, and what came of it. Pure.

Artifacts hold no predictions of single texts, only what they add up to: so the nearest thing to "predictions that
changed" is the figures of each label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luthier_artifacts import Manifest

# What is of a run and not of its result.
_NOT_COMPARED = ("output.", "tracking.", "checkpoint.")
_LOWER_IS_BETTER = ("loss", "mse", "mae", "rmse", "error", "brier", "ece", "seconds")


@dataclass(frozen=True)
class Difference:
    """A value that differs; None where one side does not have it."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class MetricChange:
    """A figure of both versions."""

    name: str
    before: float
    after: float

    @property
    def delta(self) -> float:
        """How much it grew."""
        return self.after - self.before

    @property
    def better(self) -> bool | None:
        """Whether that is an improvement; None if it is the same."""
        if self.delta == 0:
            return None
        lower = any(word in self.name.lower() for word in _LOWER_IS_BETTER)
        return (self.delta < 0) is lower


@dataclass(frozen=True)
class Comparison:
    """All that differs between two versions."""

    before: str
    after: str
    spec: list[Difference] = field(default_factory=list)
    data: list[Difference] = field(default_factory=list)
    environment: list[Difference] = field(default_factory=list)
    metrics: list[MetricChange] = field(default_factory=list)
    labels: list[MetricChange] = field(default_factory=list)

    @property
    def same_data(self) -> bool:
        """Whether both were trained on the same bytes."""
        return not any(difference.name == "dataset digest" for difference in self.data)

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""

        def rows(differences: list[Difference]) -> list[dict[str, Any]]:
            return [vars(difference) for difference in differences]

        def figures(changes: list[MetricChange]) -> list[dict[str, Any]]:
            return [{**vars(change), "delta": change.delta, "better": change.better} for change in changes]

        return {
            "before": self.before,
            "after": self.after,
            "spec": rows(self.spec),
            "data": rows(self.data),
            "environment": rows(self.environment),
            "metrics": figures(self.metrics),
            "labels": figures(self.labels),
        }


def compare(
    before: Manifest,
    after: Manifest,
    figures_before: Mapping[str, Any] | None = None,
    figures_after: Mapping[str, Any] | None = None,
) -> Comparison:
    """Return what differs between two versions.

    Args:
        before: Manifest of the older one.
        after: Manifest of the newer one.
        figures_before: Its metrics.json, for the figures of each label.
        figures_after: The same of the newer one.
    """
    old, new = before.lineage, after.lineage
    spec = _differences(flatten(old.run_document.get("spec", {})), flatten(new.run_document.get("spec", {})))
    facts_old = {"base model": old.base_model_digest, "base model commit": old.base_model_revision, "image": old.image}
    facts_new = {"base model": new.base_model_digest, "base model commit": new.base_model_revision, "image": new.image}
    return Comparison(
        before.version,
        after.version,
        [difference for difference in spec if not difference.name.startswith(_NOT_COMPARED)],
        _differences(
            {"dataset digest": old.dataset_digest, **flatten(old.dataset_quality)},
            {"dataset digest": new.dataset_digest, **flatten(new.dataset_quality)},
        ),
        _differences(
            {**facts_old, "trainer": old.code_version, **old.environment},
            {**facts_new, "trainer": new.code_version, **new.environment},
        ),
        _changes(before.metrics, after.metrics),
        _changes(_label_figures(figures_before or {}), _label_figures(figures_after or {})),
    )


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted path: value} of nested objects; a list is one value."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, child in value.items():
        found |= flatten(child, f"{prefix}.{key}" if prefix else str(key))
    return found


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    names = [*before, *(name for name in after if name not in before)]
    return [
        Difference(name, _said(before.get(name)), _said(after.get(name)))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _said(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _changes(before: Mapping[str, float], after: Mapping[str, float]) -> list[MetricChange]:
    return [MetricChange(name, before[name], after[name]) for name in before if name in after]


def _label_figures(document: Mapping[str, Any]) -> dict[str, float]:
    """Return {label: F1} of a metrics.json; empty for one of another form."""
    rows = [row for row in document.get("labels") or [] if isinstance(row, Mapping)]
    return {str(row["label"]): float(row["f1"]) for row in rows if row.get("f1") is not None and "label" in row}
