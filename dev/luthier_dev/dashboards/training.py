"""The dashboard of training: how many runs there are, why some have stopped, what GPUs do, and how fast each run is."""

from typing import Any

from luthier_dev.dashboards.panels import Query, Row, graph, number, variable
from luthier_dev.dashboards.panels import dashboard as made

_CHOSEN = 'namespace=~"$namespace"'
_RUN = f'{_CHOSEN},finetunejob=~"$finetunejob"'
_NAME = "{{namespace}}/{{finetunejob}}"


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return made(
        "training",
        "Training",
        "FineTuneJobs: runs, queue, GPU time, throughput, failures by reason. The first row is about all namespaces.",
        [
            variable("namespace", "Namespace", "luthier_gpu_seconds_total"),
            variable("finetunejob", "FineTuneJob", "luthier_training_step"),
        ],
        [
            Row(
                "FineTuneJobs of the cluster",
                [
                    number("Training", 'max(luthier_resources{kind="FineTuneJob",phase="Training"}) or vector(0)'),
                    number("Queued", 'max(luthier_resources{kind="FineTuneJob",phase="Queued"}) or vector(0)'),
                    number("Failed", 'max(luthier_resources{kind="FineTuneJob",phase="Failed"}) or vector(0)'),
                    number("GPU time in this range", "sum(increase(luthier_gpu_seconds_total[$__range]))", unit="s"),
                ],
                height=4,
            ),
            Row(
                "Runs, and what has stopped",
                [
                    graph(
                        "By phase",
                        Query('max by (phase) (luthier_resources{kind="FineTuneJob"})', "{{phase}}"),
                        stacked=True,
                    ),
                    graph(
                        "Stopped, by reason",
                        Query(
                            f'max by (namespace, reason) (luthier_stalled_resources{{kind="FineTuneJob",{_CHOSEN}}})',
                            "{{namespace}}: {{reason}}",
                        ),
                        says="FineTuneJobs that wait for an edit or a retry. The reasons: docs/troubleshooting.md.",
                        stacked=True,
                    ),
                    graph(
                        "GPUs in use",
                        Query(
                            f"sum by (namespace) (rate(luthier_gpu_seconds_total{{{_CHOSEN}}}[$__rate_interval]))",
                            "{{namespace}}",
                        ),
                        says="GPU seconds per second, as they are added to status.usage.",
                        stacked=True,
                    ),
                ],
            ),
            Row(
                "Each run",
                [
                    graph(
                        "Progress",
                        Query(
                            f"100 * luthier_training_step{{{_RUN}}} "
                            f"/ (luthier_training_steps_total_planned{{{_RUN}}} > 0)",
                            _NAME,
                        ),
                        unit="percent",
                    ),
                    graph("Time left", Query(f"luthier_training_eta_seconds{{{_RUN}}}", _NAME), unit="s"),
                    graph("Examples a second", Query(f"luthier_training_examples_per_second{{{_RUN}}}", _NAME)),
                    graph("Tokens a second", Query(f"luthier_training_tokens_per_second{{{_RUN}}}", _NAME)),
                ],
            ),
            Row(
                "What it learns",
                [
                    graph(
                        "Loss", Query(f'luthier_training_metric{{{_RUN},metric=~".*loss"}}', f"{_NAME} {{{{metric}}}}")
                    ),
                    graph(
                        "Metrics of the evaluation",
                        Query(
                            f'luthier_training_metric{{{_RUN},metric=~"eval_.*",metric!~".*loss"}}',
                            f"{_NAME} {{{{metric}}}}",
                        ),
                    ),
                    graph(
                        "Peak memory of the GPU",
                        Query(f"luthier_training_gpu_memory_bytes{{{_RUN}}}", _NAME),
                        unit="bytes",
                        says="Nothing, of a run without a GPU.",
                    ),
                    graph(
                        "Stage of the pods",
                        Query(f"sum by (stage) (luthier_training_stage{{{_RUN}}})", "{{stage}}"),
                        stacked=True,
                    ),
                ],
            ),
        ],
    )
