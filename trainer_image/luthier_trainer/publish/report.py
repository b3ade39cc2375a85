"""Writes report.html: one file that a browser opens without a network, readable on a phone, light and dark.

Owns its looks only, with templates/report.html.j2 and the parts beside it; what is shown is worked out by
`report_sections`, and drawn by `plots`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from luthier_api.documents import RunDocument
from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.publish import report_sections as sections
from luthier_trainer.publish.findings import Findings
from luthier_trainer.spec.flatten_spec import flatten_spec


def write_report(
    path: Path, run: RunDocument, prepared: PreparedFolder, findings: Findings, environment: dict[str, str]
) -> None:
    """Write the report of one run."""
    templates = Environment(
        loader=PackageLoader("luthier_trainer.publish"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"number": number, "percent": percent, "duration": duration, "words": words}
    evaluations = [sections.evaluation_section("eval", "Evaluation", run.spec, findings.evaluation, findings.metrics)]
    if findings.test:
        evaluations.append(sections.evaluation_section("test", "Test", run.spec, findings.test, findings.metrics))
    html = templates.get_template("report.html.j2").render(
        run=run,
        spec=run.spec,
        findings=findings,
        headline=sections.headline(run.spec, findings),
        gates=sections.gates(run.spec, findings.metrics),
        training=sections.training_plots(run.spec, findings),
        baseline=sections.baseline_name(run.spec.task),
        evaluations=evaluations,
        data=prepared.data,
        quality=quality_section(prepared.quality.model_dump(mode="json")),
        reference=sections.reference_rows(findings.reference),
        settings=flatten_spec(run.spec),
        environment=environment,
    )
    path.write_text(html, encoding="utf-8")


@dataclass(frozen=True)
class Table:
    """A named table: rows of named cells."""

    name: str
    columns: list[str]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class QualitySection:
    """The quality report by the shape of its fields, so that a new field needs no change here."""

    warnings: list[str]
    facts: dict[str, Any]
    tables: list[Table]


def quality_section(report: Mapping[str, Any]) -> QualitySection:
    """Return the parts of a quality report: sentences, single facts, and tables of the rest."""
    facts: dict[str, Any] = {}
    tables: list[Table] = []
    for name, value in report.items():
        if name == "warnings" or value in (None, [], {}):
            continue
        rows = _rows(name, value)
        if rows:
            tables.append(Table(name, list(dict.fromkeys(column for row in rows for column in row)), rows))
        else:
            facts[name] = value
    return QualitySection(list(report.get("warnings", [])), facts, tables)


def _rows(name: str, value: Any) -> list[dict[str, Any]]:
    """Return a list or a mapping of records as rows; none for a single fact."""
    if isinstance(value, list):
        return [row for row in value if isinstance(row, dict)]
    if not isinstance(value, dict):
        return []
    first = "label" if name == "labels" else "part"
    return [{first: key} | each for key, each in value.items() if isinstance(each, dict)]


def number(value: Any, digits: int = 4) -> str:
    """Return a number for people: counts whole, measures to some digits, no number as a dash; a list as text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u2009")
    if value and abs(value) < 10**-digits:
        return f"{value:.2g}"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:.5g}"


def percent(share: float | None) -> str:
    """Return a share as percent."""
    return "–" if share is None or not math.isfinite(share) else f"{share * 100:.1f}\u2009%"


def duration(seconds: float) -> str:
    """Return seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def words(name: str) -> str:
    """Return a field's name for people."""
    return name.replace("_", " ")
