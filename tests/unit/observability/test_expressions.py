"""Every expression of dashboards and alerts asks for metrics that our programs export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from luthier_dev.charts import CHART
from luthier_dev.dashboards import dashboards
from support import scrapes

pytestmark = pytest.mark.unit

_METRIC = re.compile(r"\b(?:ray_)?(?:luthier|process)_\w+")
OF_EVERY_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
BOARDS = dashboards()


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression with the name of what asks it."""
    for board in BOARDS.values():
        for panel in board["panels"]:
            yield from ((f"{board['title']}: {panel['title']}", each["expr"]) for each in panel.get("targets", ()))
        for each in board["templating"]["list"]:
            if each["type"] == "query":
                yield f"{board['title']}: ${each['name']}", each["definition"]
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


def test_no_expression_asks_for_a_metric_that_nobody_exports() -> None:
    exported = scrapes.exported()
    asked = [(where, name) for where, expression in expressions() for name in _METRIC.findall(expression)]
    assert len(asked) > 60
    assert [each for each in asked if each[1] not in exported | OF_EVERY_PROCESS] == []


def test_what_an_alert_is_about_is_seen_on_a_dashboard() -> None:
    found = list(expressions())
    shown = {name for where, expression in found if ":" in where for name in _METRIC.findall(expression)}
    alerted = {name for where, expression in found if ":" not in where for name in _METRIC.findall(expression)}
    assert alerted - shown == set()


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_laid_out_without_gaps_or_overlaps_and_replaces_that_of_an_earlier_release(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == f"luthier-{name}" and board["title"].startswith("Luthier / ")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    titles = [panel["title"] for panel in board["panels"] if panel["type"] != "row"]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("name", BOARDS)
def test_every_variable_of_a_dashboard_is_there_and_used(name: str) -> None:
    board: dict[str, Any] = BOARDS[name]
    text = json.dumps(board["panels"])
    for each in board["templating"]["list"]:
        assert f"${each['name']}" in text or f"${{{each['name']}}}" in text
    known = {each["name"] for each in board["templating"]["list"]} | {"__rate_interval", "__range"}
    assert set(re.findall(r"\$\{?(\w+)", text)) <= known


def test_the_charts_dashboards_are_those_of_the_code() -> None:
    """`make generate` writes them."""
    for name, board in BOARDS.items():
        assert json.loads((CHART / "files" / "dashboards" / f"{name}.json").read_text()) == board
