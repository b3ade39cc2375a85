"""Writes report.html: one file that a browser opens without a network, readable on a phone, light and dark.

Owns its looks only; every number comes from the findings, the quality report and the run document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, select_autoescape

from luthier_api.documents import RunDocument
from luthier_trainer.prepared import PreparedFolder

if TYPE_CHECKING:
    from luthier_trainer.artifact import Findings

# With more labels a matrix is a wall of numbers; the per-label table stays.
MAX_MATRIX_LABELS = 30
_CHART_WIDTH, _CHART_HEIGHT = 640, 200


@dataclass(frozen=True)
class Curve:
    """A line of the loss chart: its points in the chart's own coordinates, and the first and the last loss."""

    name: str
    points: list[tuple[float, float]]
    first: float
    last: float


def write_report(
    path: Path, run: RunDocument, prepared: PreparedFolder, findings: "Findings", environment: dict[str, str]
) -> None:
    """Write the report of one run."""
    templates = Environment(loader=PackageLoader("luthier_trainer"), autoescape=select_autoescape(default=True))
    largest = max((count for row in findings.evaluation.confusion for count in row), default=1)
    html = templates.get_template("report.html.j2").render(
        run=run,
        spec=run.spec.to_wire(),
        findings=findings,
        quality=prepared.quality,
        data=prepared.data,
        environment=environment,
        curves=loss_curves(findings.history),
        chart=(_CHART_WIDTH, _CHART_HEIGHT),
        show_matrix=0 < len(findings.evaluation.confusion) <= MAX_MATRIX_LABELS,
        largest=max(1, largest),
    )
    path.write_text(html, encoding="utf-8")


def loss_curves(history: Sequence[dict[str, Any]]) -> list[Curve]:
    """Return training and evaluation loss over optimizer steps, scaled to one chart that starts at zero."""
    series = {
        name: [(float(entry["step"]), float(entry[key])) for entry in history if key in entry]
        for name, key in (("training loss", "loss"), ("evaluation loss", "eval_loss"))
    }
    points = [point for line in series.values() for point in line]
    if not points:
        return []
    last_step, highest = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
    return [
        Curve(
            name,
            [(round(x / last_step * _CHART_WIDTH, 1), round((1 - y / highest) * _CHART_HEIGHT, 1)) for x, y in line],
            line[0][1],
            line[-1][1],
        )
        for name, line in series.items()
        if line
    ]
