"""Alerts and dashboards before a real Prometheus, which scrapes what our programs really said."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from luthier_dev import prometheus
from luthier_dev.charts import CHART
from luthier_dev.processes import free_ports
from luthier_dev.prometheus import Prometheus
from luthier_dev.waiting import wait_until
from support import scrapes

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
RULES = CHART / "files" / "alerts.yaml"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "files" / "dashboards").glob("*.json"))}
GRAFANA = {"$__rate_interval": "30s", "$__range": "1m", "$namespace": ".*", "$finetunejob": ".*"}
GRAFANA |= {"$modeldeployment": ".*", "$job": ".*"}
SCRAPED: dict[str, tuple[Callable[[], str], dict[str, str]]] = {
    "operator": (lambda: scrapes.recorded("operator"), {"namespace": "luthier-system", "pod": "luthier-0"}),
    "training": (
        scrapes.training,
        {"namespace": "team", "finetunejob": "reviews", "run": "reviews-1", "pod": "train-0"},
    ),
    "serving": (lambda: scrapes.recorded("serving"), {"namespace": "team", "modeldeployment": "reviews", "pod": "w-0"}),
}


def promtool(*arguments: str) -> str:
    prometheus.ensure()
    command = [str(prometheus.path("promtool")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def said(text: str) -> Iterator[str]:
    """Serve a text at /metrics; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped all three programs several times."""
    prometheus.ensure()
    (port,) = free_ports(1)
    with ExitStack() as stack:
        targets = {stack.enter_context(said(text())): labels for text, labels in SCRAPED.values()}
        server = stack.enter_context(Prometheus(tmp_path_factory.mktemp("prometheus"), port, targets, [RULES]))

        def missing() -> str | None:
            counts = [int(each["value"][1]) for each in server.ask("count_over_time(up[1m])")]
            return None if len(counts) == len(targets) and min(counts) >= 4 else f"scrapes: {counts}"

        wait_until(missing, "a few scrapes", 30)
        yield server


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    assert "14 rules found" in promtool("check", "rules", "--lint-fatal", str(RULES))


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    """promtool's own tests, in alerts_test.yaml; an alert that they do not name is an omission."""
    assert "SUCCESS" in promtool("test", "rules", str(HERE / "alerts_test.yaml"))
    tested = (HERE / "alerts_test.yaml").read_text()
    alerts = [line.partition("alert: ")[2] for line in RULES.read_text().splitlines() if "- alert: " in line]
    assert (
        len(alerts) == 14 and [each for each in alerts if f'alertname="{each}",alertstate="firing"' not in tested] == []
    )


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_of_a_dashboard_is_empty(scraped: Prometheus, name: str) -> None:
    empty = []
    for panel in BOARDS[name]["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in GRAFANA.items():
                expression = expression.replace(variable, value)
            if not scraped.ask(expression):
                empty.append(f"{panel['title']}: {expression}")
    assert empty == []


@pytest.mark.parametrize("name", BOARDS)
def test_every_legend_names_labels_that_the_series_have(scraped: Prometheus, name: str) -> None:
    wrong: list[Any] = []
    for panel in BOARDS[name]["panels"]:
        for target in panel.get("targets", ()):
            expression, labels = target["expr"], set(_labels_of(target["legendFormat"]))
            for variable, value in GRAFANA.items():
                expression = expression.replace(variable, value)
            there = {label for series in scraped.ask(expression) for label in series["metric"]}
            if there and not labels <= there:  # without labels is the 0 where there is nothing
                wrong.append((panel["title"], labels - there))
    assert wrong == []


def _labels_of(legend: str) -> Iterator[str]:
    for part in legend.split("{{")[1:]:
        yield part.partition("}}")[0]


def test_a_running_prometheus_takes_the_rules(scraped: Prometheus) -> None:
    assert scraped.ask("count(ALERTS) or vector(0)")
