"""The dashboard of serving: traffic by revision, latency, errors, queues, and which models are not available."""

from typing import Any

from luthier_dev.dashboards.panels import Query, Row, graph, number, variable
from luthier_dev.dashboards.panels import dashboard as made

_CHOSEN = 'namespace=~"$namespace",modeldeployment=~"$modeldeployment"'
_NAME = "{{namespace}}/{{modeldeployment}}"
_BY_NAME = "namespace, modeldeployment"
_FAILED = 'code=~"500|504"'
_REFUSED = 'code="503"'


def _rate(metric: str, by: str, *selectors: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{','.join((_CHOSEN, *selectors))}}}[$__rate_interval]))"


def _share(metric: str, selector: str) -> str:
    """Return the share of a model's requests that have these labels; 0, and not nothing, where there are none."""
    every = _rate(metric, _BY_NAME)
    return f"({_rate(metric, _BY_NAME, selector)} or 0 * {every}) / {every}"


def _quantile(share: str, by: str) -> str:
    return f"histogram_quantile({share}, {_rate('ray_luthier_request_seconds_bucket', f'{by}, le')})"


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    requests = "ray_luthier_requests_total"
    return made(
        "serving",
        "Serving",
        "ModelDeployments: traffic by revision, latency, errors, queues. status.revisions has the version of each.",
        [
            variable("namespace", "Namespace", requests),
            variable("modeldeployment", "ModelDeployment", requests),
        ],
        [
            Row(
                "ModelDeployments of the cluster",
                [
                    number("Serving", 'max(luthier_resources{kind="ModelDeployment",phase="Serving"}) or vector(0)'),
                    number(
                        "Rolling out", 'max(luthier_resources{kind="ModelDeployment",phase="RollingOut"}) or vector(0)'
                    ),
                    number(
                        "Not available", "sum(max by (namespace) (luthier_unavailable_modeldeployments)) or vector(0)"
                    ),
                    number("Requests a second", f"sum(rate({requests}{{{_CHOSEN}}}[$__rate_interval]))", unit="reqps"),
                ],
                height=4,
            ),
            Row(
                "Traffic",
                [
                    graph("Requests", Query(_rate(requests, _BY_NAME), _NAME), unit="reqps", stacked=True),
                    graph(
                        "By revision",
                        Query(_rate(requests, "modeldeployment, revision"), "{{modeldeployment}} {{revision}}"),
                        unit="reqps",
                        says="During a rollout, the shares of the versions.",
                        stacked=True,
                    ),
                    graph("By status code", Query(_rate(requests, "code"), "{{code}}"), unit="reqps", stacked=True),
                ],
            ),
            Row(
                "Latency",
                [
                    graph(
                        "p50, p95, p99",
                        *(
                            Query(_quantile(share, _BY_NAME), f"{_NAME} p{name}")
                            for share, name in (("0.5", "50"), ("0.95", "95"), ("0.99", "99"))
                        ),
                        unit="s",
                        says="Of requests answered with 200, from the request to its answer.",
                    ),
                    graph(
                        "p99 by revision",
                        Query(_quantile("0.99", "modeldeployment, revision"), "{{modeldeployment}} {{revision}}"),
                        unit="s",
                    ),
                ],
            ),
            Row(
                "Errors",
                [
                    graph(
                        "Failed (500, 504)",
                        Query(_share(requests, _FAILED), _NAME),
                        unit="percentunit",
                    ),
                    graph(
                        "Refused (503)",
                        Query(_share(requests, _REFUSED), _NAME),
                        unit="percentunit",
                    ),
                    graph(
                        "Stalled, by reason",
                        Query(
                            'max by (namespace, reason) (luthier_stalled_resources{kind="ModelDeployment",'
                            'namespace=~"$namespace"})',
                            "{{namespace}}: {{reason}}",
                        ),
                        says="Rollouts that have ended badly, or models that cannot be served.",
                        stacked=True,
                    ),
                ],
            ),
            Row(
                "Replicas",
                [
                    graph(
                        "Replicas that report",
                        Query(f"count by ({_BY_NAME}) (ray_luthier_pending_requests{{{_CHOSEN}}})", _NAME),
                    ),
                    graph(
                        "Pending requests",
                        Query(f"sum by ({_BY_NAME}) (ray_luthier_pending_requests{{{_CHOSEN}}})", _NAME),
                    ),
                    graph(
                        "Texts in a batch",
                        Query(
                            f"{_rate('ray_luthier_batch_texts_sum', _BY_NAME)} "
                            f"/ {_rate('ray_luthier_batch_texts_count', _BY_NAME)}",
                            _NAME,
                        ),
                    ),
                ],
            ),
        ],
    )
