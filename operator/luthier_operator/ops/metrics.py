"""What the operator counts about itself, for Prometheus.

Everything is counted where it happens. What is a number of things that exist is asked for when it is scraped, from
what the cache keeps parsed.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from luthier_operator.model.views import RESOURCE_KINDS, ResourceKind

RECONCILES = Counter("luthier_reconciles", "Reconciles that were carried out.", ["kind"])
ERRORS = Counter("luthier_reconcile_errors", "Reconciles that could not finish, by reason.", ["reason"])
DURATION = Histogram(
    "luthier_reconcile_seconds",
    "Duration of a reconcile.",
    ["kind"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)
WRITES = Counter("luthier_writes", "Writes to the API server, by what they were.", ["what"])
REQUESTS = Counter(
    "luthier_api_requests",
    "Requests to the API server, by verb and HTTP status; none where there was no answer.",
    ["verb", "code"],
)
QUEUE_DEPTH = Gauge("luthier_queue_depth", "Resources that wait to be reconciled.")
QUEUE_AGE = Gauge("luthier_queue_oldest_seconds", "How long the resource has waited that has waited longest.")
LEADER = Gauge("luthier_leader", "1 in the operator that works, 0 in one that stands by.")
GPU_SECONDS = Counter(
    "luthier_gpu_seconds", "GPU time that training used, as it was added to the status of FineTuneJobs.", ["namespace"]
)
MISSED = Counter("luthier_watch_missed", "Objects of which a watch did not tell, found by the audit.", ["change"])
RESTARTS = Counter("luthier_watch_restarts", "Times that all watches ended and began anew.")
PROGRESS_REQUESTS = Counter(
    "luthier_progress_requests",
    "Times that a training pod was asked for its progress, or a server replica for its report.",
)
PROGRESS_FAILURES = Counter("luthier_progress_failures", "Pods that gave no usable answer when asked.")

Phases = Callable[[ResourceKind], Iterable[str]]
"""The phase of every resource of a kind."""
Stalled = Callable[[ResourceKind], Iterable[tuple[str, str]]]
"""The namespace and the reason of every resource of a kind that is stalled."""
Namespaces = Callable[[], Iterable[str]]
"""The namespace of every one."""


class Resources:
    """How many resources there are in each phase."""

    def __init__(self, phases: Phases, registry: CollectorRegistry = REGISTRY) -> None:
        """Register; `phases` is called for each scrape."""
        self._phases = phases
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Count."""
        family = GaugeMetricFamily("luthier_resources", "Resources, by kind and phase.", labels=["kind", "phase"])
        for kind in RESOURCE_KINDS:
            for phase, count in sorted(Tally(self._phases(kind)).items()):
                family.add_metric([kind, phase], count)
        yield family

    def describe(self) -> Iterator[Metric]:
        """Name what is collected, without counting."""
        yield GaugeMetricFamily("luthier_resources", "Resources, by kind and phase.", labels=["kind", "phase"])


class Conditions:
    """How many resources need somebody: those that are stalled, and ModelDeployments that answer no request."""

    def __init__(self, stalled: Stalled, unavailable: Namespaces, registry: CollectorRegistry = REGISTRY) -> None:
        """Register; both are called for each scrape."""
        self._stalled, self._unavailable = stalled, unavailable
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Count."""
        stalled, unavailable = self.describe()
        for kind in RESOURCE_KINDS:
            for (namespace, reason), count in sorted(Tally(self._stalled(kind)).items()):
                stalled.add_metric([kind, namespace, reason], count)
        for namespace, count in sorted(Tally(self._unavailable()).items()):
            unavailable.add_metric([namespace], count)
        yield from (stalled, unavailable)

    def describe(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        """Name what is collected, without counting."""
        return (
            GaugeMetricFamily(
                "luthier_stalled_resources",
                "Resources that wait for an edit or a retry, by kind, namespace and reason.",
                labels=["kind", "namespace", "reason"],
            ),
            GaugeMetricFamily(
                "luthier_unavailable_modeldeployments",
                "ModelDeployments that answer no request and should, by namespace.",
                labels=["namespace"],
            ),
        )
