"""What Prometheus sees of the server, beside Ray's own metrics, on the metrics port of the node's Ray agent.

Ray prefixes each name with `ray_` and adds the application, deployment and replica as labels. What takes one call for
each request is kept to four; the rest is recorded for each batch, or by the clock.
"""

from collections.abc import Mapping, Sequence

from ray.serve.metrics import Counter, Gauge, Histogram

from luthier_api.documents import Feature
from luthier_serving.answers import Work

SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
# A stage may take far less than a request.
STAGE_SECONDS = [0.0001, 0.0002, 0.0005, 0.001, *SECONDS]
TEXTS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
TOKENS = [16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0]
_REVISION = ("revision", "version")

Labels = dict[str, str]


class ServerMetrics:
    """The metrics of one server replica.

    Attributes:
        versions: {revision: version}, for the label.
    """

    def __init__(self) -> None:
        self.versions: Mapping[str, str] = {}
        self._labels: dict[tuple[str, ...], Labels] = {}
        self._requests = Counter(
            "luthier_requests_total",
            description="Requests for predictions, by status code.",
            tag_keys=("code", *_REVISION),  # type: ignore[arg-type]  # Ray says tuple[str] and means tuple[str, ...]
        )
        self._errors = Counter(
            "luthier_errors_total",
            description="Requests that were not answered as they should be, by kind.",
            tag_keys=("kind", *_REVISION),  # type: ignore[arg-type]
        )
        self._seconds = _histogram(
            "luthier_request_seconds", "Time from request to answer, of requests answered with 200.", SECONDS
        )
        self._stages = _histogram(
            "luthier_stage_seconds", "Time by stage: queue, tokenize, compute, total.", STAGE_SECONDS, "stage"
        )
        self._batch_texts = _histogram("luthier_batch_texts", "Texts per batch.", TEXTS)
        self._batch_tokens = _histogram("luthier_batch_tokens", "Tokens per batch, without padding.", TOKENS)
        self._pending = Gauge("luthier_pending_requests", description="Requests accepted and not yet answered.")
        self._queue_texts = _gauge("luthier_queue_texts", "Texts that wait for a batch.")
        self._queue_oldest = _gauge("luthier_queue_oldest_seconds", "How long the oldest of them has waited.")
        self._drift = _gauge("luthier_drift_psi", "Population stability index beside the training.", "feature")
        self._drift_texts = _gauge("luthier_drift_texts", "Texts in the window that drift is measured over.")
        self._logged = Counter(
            "luthier_request_log_requests_total",
            description="Requests drawn for the request log, by what became of them.",
            tag_keys=("outcome",),
        )

    def observe_batch(self, revision: str, texts: int) -> None:
        """Record a batch that leaves for a revision."""
        self._batch_texts.observe(texts, tags=self._of(revision))

    def observe_request(self, code: int, revision: str, seconds: float, pending: int) -> None:
        """Record an answered request; `revision` is empty if no revision answered."""
        self._requests.inc(1, tags=self._of(revision, "code", str(code)))
        if code == 200:
            self._seconds.observe(seconds, tags=self._of(revision))
        self._pending.set(pending)

    def observe_total(self, revision: str, seconds: float) -> None:
        """Record how long an answered request took, from admission to answer."""
        self._stages.observe(seconds, tags=self._of(revision, "stage", "total"))

    def observe_error(self, kind: str, revision: str) -> None:
        """Record a request that was not answered as it should be."""
        self._errors.inc(1, tags=self._of(revision, "kind", kind))

    def observe_computed(self, revision: str, waits: Sequence[float], work: Work | None) -> None:
        """Record a batch: how long each part of it has waited, in seconds, and what the model has done."""
        queue = self._of(revision, "stage", "queue")
        for seconds in waits:
            self._stages.observe(seconds, tags=queue)
        if work:
            self._stages.observe(work.tokenize_s, tags=self._of(revision, "stage", "tokenize"))
            self._stages.observe(work.compute_s, tags=self._of(revision, "stage", "compute"))
            self._batch_tokens.observe(work.tokens, tags=self._of(revision))

    def set_queue(self, revision: str, texts: int, oldest_s: float) -> None:
        """Set the depth of a revision's queue, and the age of what has waited longest."""
        self._queue_texts.set(texts, tags=self._of(revision))
        self._queue_oldest.set(oldest_s, tags=self._of(revision))

    def set_drift(self, revision: str, texts: int, figures: Mapping[Feature, float]) -> None:
        """Set how far a revision's texts and answers are from its reference, over so many texts."""
        self._drift_texts.set(texts, tags=self._of(revision))
        for feature, psi in figures.items():
            self._drift.set(psi, tags=self._of(revision, "feature", feature))

    def add_logged(self, written: int, dropped: int) -> None:
        """Count requests in the log since the last time."""
        for outcome, count in (("written", written), ("dropped", dropped)):
            if count:
                self._logged.inc(count, tags={"outcome": outcome})

    def _of(self, revision: str, label: str = "", value: str = "") -> Labels:
        """Return the labels of a revision, and one more; made once, since each request needs them."""
        found = self._labels.get((revision, label, value))
        if found is None:
            found = {"revision": revision, "version": self.versions.get(revision, "")}
            if label:
                found[label] = value
            self._labels[revision, label, value] = found
        return found


def _histogram(name: str, description: str, boundaries: list[float], *labels: str) -> Histogram:
    return Histogram(
        name,
        description=description,
        boundaries=boundaries,
        tag_keys=(*labels, *_REVISION),  # type: ignore[arg-type]
    )


def _gauge(name: str, description: str, *labels: str) -> Gauge:
    return Gauge(name, description=description, tag_keys=(*labels, *_REVISION))  # type: ignore[arg-type]
