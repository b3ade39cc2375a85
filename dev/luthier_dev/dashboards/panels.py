"""Panels, rows and variables of a dashboard, as far as ours need them: Grafana's JSON model, version 39 of its schema.

A panel is placed by its row: panels of one row share its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_WIDTH = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """An expression, and how each of its series is called."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Panel:
    """A graph, or a number.

    Attributes:
        unit: Grafana's name of the unit.
        says: what the panel shows, for whoever has not built it.
        stacked: whether series are put on top of each other.
    """

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    says: str = ""
    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False


def graph(title: str, *queries: Query, unit: str = "short", says: str = "", stacked: bool = False) -> Panel:
    """Return a panel of lines over time."""
    return Panel(title, queries, unit, says, stacked=stacked)


def number(title: str, expr: str, *, unit: str = "short", says: str = "") -> Panel:
    """Return a panel of one number."""
    return Panel(title, [Query(expr)], unit, says, kind="stat")


@dataclass(frozen=True)
class Row:
    """Panels beside each other, under a heading."""

    title: str
    panels: Sequence[Panel]
    height: int = 8


def variable(name: str, label: str, metric: str) -> dict[str, Any]:
    """Return a variable that is filled with the values of a label, several or all of which may be chosen."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "definition": f"label_values({metric}, {name})",
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard(
    name: str, title: str, description: str, variables: Sequence[dict[str, Any]], rows: Sequence[Row]
) -> dict[str, Any]:
    """Return a dashboard; `name` decides its uid, so that a new release replaces it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": y}
        panels.append({"type": "row", "id": len(panels) + 1, "title": row.title, "collapsed": False, "gridPos": place})
        width = _WIDTH // len(row.panels)
        for column, panel in enumerate(row.panels):
            place = {"h": row.height, "w": width, "x": column * width, "y": y + 1}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        y += 1 + row.height
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"luthier-{name}",
        "title": f"Luthier / {title}",
        "description": description,
        "tags": ["luthier"],
        "schemaVersion": 39,
        "editable": True,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [source, *variables]},
        "annotations": {"list": []},
        "links": [
            {"type": "dashboards", "tags": ["luthier"], "title": "Luthier", "asDropdown": True, "keepTime": True}
        ],
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    custom = {"fillOpacity": 10, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    defaults: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": custom} if panel.stacked else {"custom": custom}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": each.expr, "legendFormat": each.legend}
            for index, each in enumerate(panel.queries)
        ],
    }
