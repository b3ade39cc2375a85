"""What the operator counts about itself, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("luthier_reconciles", "Reconciles that were carried out.", ["kind"])
ERRORS = Counter("luthier_reconcile_errors", "Reconciles that could not finish, by cause.", ["cause"])
DURATION = Histogram(
    "luthier_reconcile_seconds",
    "Duration of a reconcile.",
    ["kind"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)
WRITES = Counter("luthier_writes", "Writes to the API server, by what they were.", ["what"])
QUEUE_DEPTH = Gauge("luthier_queue_depth", "Resources that wait to be reconciled.")
PROGRESS_FAILURES = Counter("luthier_progress_failures", "Training pods that did not tell their progress when asked.")
