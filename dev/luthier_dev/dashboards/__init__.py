"""The chart's Grafana dashboards, as Python says them: one module each, over the few panels of `panels`.

`dashboards()` returns them as the JSON that Grafana imports; `chart_files` writes them into the chart. Each expression
is asked of a real Prometheus by tests/integration/observability.
"""

from typing import Any

from luthier_dev.dashboards import operator, serving, training

__all__ = ["dashboards"]


def dashboards() -> dict[str, dict[str, Any]]:
    """Return {name: dashboard}."""
    return {"training": training.dashboard(), "serving": serving.dashboard(), "operator": operator.dashboard()}
