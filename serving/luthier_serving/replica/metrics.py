"""What Prometheus sees of the server, beside Ray's own metrics, on the metrics port of the node's Ray agent.

Ray prefixes each name with `ray_` and adds the application, deployment and replica as labels.
"""

from ray.serve.metrics import Counter, Gauge, Histogram

SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
TEXTS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]


class ServerMetrics:
    """The metrics of one server replica."""

    def __init__(self) -> None:
        self._requests = Counter(
            "luthier_requests_total",
            description="Requests for predictions, by status code.",
            tag_keys=("code", "revision"),  # type: ignore[arg-type]  # Ray says tuple[str] and means tuple[str, ...]
        )
        self._seconds = Histogram(
            "luthier_request_seconds",
            description="Time from request to answer, of requests answered with 200.",
            boundaries=SECONDS,
            tag_keys=("revision",),
        )
        self._batch_texts = Histogram(
            "luthier_batch_texts", description="Texts per batch.", boundaries=TEXTS, tag_keys=("revision",)
        )
        self._pending = Gauge("luthier_pending_requests", description="Requests accepted and not yet answered.")

    def observe_batch(self, revision: str, texts: int) -> None:
        """Record a batch that leaves for a revision."""
        self._batch_texts.observe(texts, tags={"revision": revision})

    def observe_request(self, code: int, revision: str, seconds: float, pending: int) -> None:
        """Record an answered request; `revision` is empty if no revision answered."""
        self._requests.inc(1, tags={"code": str(code), "revision": revision})
        if code == 200:
            self._seconds.observe(seconds, tags={"revision": revision})
        self._pending.set(pending)
