"""The dashboard of the operator itself: who leads, reconciles, the work queue, the API server, its process."""

from typing import Any

from luthier_dev.dashboards.panels import Query, Row, graph, number, variable
from luthier_dev.dashboards.panels import dashboard as made

_JOB = 'job=~"$job"'
# Of each process that is an operator.
_OURS = f"and on (job, instance) luthier_leader{{{_JOB}}}"


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{_JOB}}}[$__rate_interval]))"


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return made(
        "operator",
        "Operator",
        "Luthier's operator: leader, reconciles, queue, requests to the API server, memory and CPU.",
        [variable("job", "Job", "luthier_leader")],
        [
            Row(
                "Now",
                [
                    number("Leaders", f"sum(luthier_leader{{{_JOB}}})", says="1, except during a takeover."),
                    number("Waiting for a reconcile", f"sum(luthier_queue_depth{{{_JOB}}})"),
                    number("Longest wait", f"max(luthier_queue_oldest_seconds{{{_JOB}}})", unit="s"),
                    number("Resources", "sum(max by (kind, phase) (luthier_resources))"),
                ],
                height=4,
            ),
            Row(
                "Reconciles",
                [
                    graph("Reconciles", Query(_rate("luthier_reconciles_total", "kind"), "{{kind}}"), unit="ops"),
                    graph(
                        "Duration (p99)",
                        Query(
                            f"histogram_quantile(0.99, {_rate('luthier_reconcile_seconds_bucket', 'kind, le')})",
                            "{{kind}}",
                        ),
                        unit="s",
                    ),
                    graph(
                        "Errors",
                        Query(f"{_rate('luthier_reconcile_errors_total', 'reason')} or vector(0)", "{{reason}}"),
                        unit="ops",
                        says="unexpected is usually a missing right; bug is a fault of Luthier.",
                    ),
                    graph("Leader", Query(f"luthier_leader{{{_JOB}}}", "{{pod}} {{instance}}")),
                ],
            ),
            Row(
                "The API server",
                [
                    graph(
                        "Requests",
                        Query(_rate("luthier_api_requests_total", "verb, code"), "{{verb}} {{code}}"),
                        unit="reqps",
                    ),
                    graph("Writes", Query(_rate("luthier_writes_total", "what"), "{{what}}"), unit="ops"),
                    graph(
                        "Watches",
                        Query(_rate("luthier_watch_restarts_total", "job"), "restarts"),
                        Query(f"{_rate('luthier_watch_missed_total', 'job')} or vector(0)", "changes missed"),
                        unit="ops",
                    ),
                ],
            ),
            Row(
                "Pods, and the process",
                [
                    graph(
                        "Questions to training and server pods",
                        Query(_rate("luthier_progress_requests_total", "job"), "asked"),
                        Query(_rate("luthier_progress_failures_total", "job"), "without an answer"),
                        unit="reqps",
                    ),
                    graph(
                        "Memory",
                        Query(f"process_resident_memory_bytes{{{_JOB}}} {_OURS}", "{{pod}} {{instance}}"),
                        unit="bytes",
                    ),
                    graph(
                        "CPU",
                        Query(
                            f"rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval]) {_OURS}",
                            "{{pod}} {{instance}}",
                        ),
                    ),
                ],
            ),
        ],
    )
