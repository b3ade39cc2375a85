"""Is told of each request and each batch, and hands on what is configured.

Called in the event loop, between a client and its answer: so it only counts, appends and compares, and every failure of
what is optional is logged and kept away from the request.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from luthier_serving.answers import Answer, Text, Work
from luthier_serving.errors import Overloaded, RequestError, Unavailable
from luthier_serving.observe.drift import DriftWindows
from luthier_serving.observe.log_lines import LoggedRequest
from luthier_serving.observe.request_log import RequestLog
from luthier_serving.observe.tracing import CURRENT, RequestTrace, Tracing

REQUEST_ID_HEADER = "x-request-id"
MOST_ID_CHARACTERS = 128
CLIENT_CLOSED_REQUEST = 499

logger = logging.getLogger("ray.serve")


class Metrics(Protocol):
    """Where stages and errors are counted."""

    def observe_total(self, revision: str, seconds: float) -> None:
        """Record how long an answered request took."""

    def observe_error(self, kind: str, revision: str) -> None:
        """Record a request that was not answered as it should be."""

    def observe_computed(self, revision: str, waits: Sequence[float], work: Work | None) -> None:
        """Record a batch: how long each part of it has waited, in seconds, and what the model has done."""


class Watch:
    """A request under way; `revision` is the one that is asked, once that is chosen."""

    __slots__ = ("adapter", "headers", "revision", "started", "texts", "trace")

    def __init__(
        self,
        texts: Sequence[Text],
        headers: Mapping[str, str],
        trace: RequestTrace | None,
        adapter: str | None = None,
    ):
        self.texts, self.headers, self.trace, self.adapter = texts, headers, trace, adapter
        self.revision = ""
        self.started = time.perf_counter()


class SentBatch(NamedTuple):
    """A batch that has come back.

    Attributes:
        parts: of each part of a request in it, since when it waited, and the request's trace if it is sampled.
        left: when it left the queue; times are seconds of the event loop's clock, which is time.monotonic().
        texts: number of texts.
        answer: None if it failed.
    """

    parts: list[tuple[float, RequestTrace | None]]
    left: float
    texts: int
    answer: Answer | None


class Observer:
    """What a replica tells of its requests.

    Attributes:
        drift, log, tracing: what is configured; None is off.

    Args:
        metrics: where stages and errors are counted; None counts nothing.
    """

    def __init__(self, metrics: Metrics | None = None):
        self._metrics = metrics
        self.drift: DriftWindows | None = None
        self.log: RequestLog | None = None
        self.tracing: Tracing | None = None

    def begin(self, texts: Sequence[Text], headers: Mapping[str, str], adapter: str | None = None) -> Watch:
        """Begin to watch a request; the current task is in its trace from now on."""
        trace = None
        if self.tracing:
            try:
                trace = self.tracing.begin(headers)
            except Exception:
                logger.exception("a request cannot be traced")
            CURRENT.set(trace)
        return Watch(texts, headers, trace, adapter)

    def answered(self, watch: Watch, revision: str, answer: Answer, *, busy: bool = False) -> None:
        """Record an answer, also one that says what is wrong with a text.

        Args:
            watch: of the request.
            revision: that answered.
            answer: to all of its texts.
            busy: whether the server has no time for a log.
        """
        seconds = time.perf_counter() - watch.started
        status = _status_of(answer)
        if self._metrics:
            self._metrics.observe_total(revision, seconds)
            if kind := _failure_of(answer):
                self._metrics.observe_error(kind, revision)
        if self.drift or self.log or watch.trace:
            watch.revision = revision
            try:
                # The texts and labels of an adapter are others than those that the model was trained on.
                if self.drift and watch.adapter is None:
                    self.drift.add(revision, answer)
                self._tell(watch, seconds, status, answer, None, busy=busy)
            except Exception:
                logger.exception("a request cannot be observed")

    def failed(self, watch: Watch, error: BaseException, *, busy: bool = False) -> None:
        """Record a request without an answer."""
        kind, status = kind_of(error)
        if self._metrics:
            self._metrics.observe_error(kind, watch.revision)
        if self.log or watch.trace:
            try:
                seconds = time.perf_counter() - watch.started
                self._tell(watch, seconds, status, None, str(error) or kind, busy=busy)
            except Exception:
                logger.exception("a request cannot be observed")

    def fell_back(self, revision: str) -> None:
        """Record a request that a revision failed, and that the stable one answers."""
        if self._metrics:
            self._metrics.observe_error("answered_by_stable", revision)

    def returned(self, revision: str, batch: SentBatch) -> None:
        """Record a batch that has come back, before its requests go on."""
        work = batch.answer.work if batch.answer else None
        if self._metrics:
            self._metrics.observe_computed(revision, [batch.left - since for since, _ in batch.parts], work)
        if self.tracing and any(trace for _, trace in batch.parts):
            try:
                self._trace_batch(revision, batch, work)
            except Exception:
                logger.exception("a batch cannot be traced")

    def _trace_batch(self, revision: str, batch: SentBatch, work: Work | None) -> None:
        assert self.tracing
        waits: dict[RequestTrace, float] = {}
        for since, trace in batch.parts:
            if trace:
                waits.setdefault(trace, since)
        attributes: dict[str, str | int] = {"luthier.revision": revision, "luthier.batch.texts": batch.texts}
        if batch.answer:
            attributes |= {"luthier.version": batch.answer.model.version, "luthier.replica": batch.answer.replica}
        if work:
            attributes["luthier.batch.tokens"] = work.tokens
        self.tracing.batch(waits, batch.left, batch.answer, attributes)

    def _tell(
        self, watch: Watch, seconds: float, status: int, answer: Answer | None, error: str | None, *, busy: bool
    ) -> None:
        request_id = watch.headers.get(REQUEST_ID_HEADER, "")[:MOST_ID_CHARACTERS]
        if watch.trace and self.tracing:
            attributes: dict[str, str | int] = {"luthier.texts": len(watch.texts), "luthier.revision": watch.revision}
            if request_id:
                attributes["luthier.request_id"] = request_id
            if answer:
                attributes["luthier.version"] = answer.model.version
            self.tracing.end(watch.trace, status, attributes)
        if self.log and self.log.wants(busy=busy):
            texts = watch.texts if self.log.config.texts else None
            request = LoggedRequest(
                *(time.time(), request_id, watch.revision, seconds, status, len(watch.texts), texts, answer, error)
            )
            self.log.add(request)


def kind_of(error: BaseException) -> tuple[str, int]:
    """Return in one word why a request has no answer, and its HTTP status."""
    if isinstance(error, asyncio.CancelledError):
        return "disconnected", CLIENT_CLOSED_REQUEST
    if isinstance(error, Overloaded):
        return "overloaded", error.status
    if isinstance(error, Unavailable):
        return "unavailable", error.status
    if isinstance(error, RequestError):
        return {504: "timeout", 422: "invalid_input"}.get(error.status, "model"), error.status
    return "internal", 500


def _status_of(answer: Answer) -> int:
    first = answer.rows[0]
    if first.invalid_input:
        return 422
    return 500 if first.error and len(answer.rows) == 1 else 200


def _failure_of(answer: Answer) -> str | None:
    """Return why some text has no answer."""
    for row in answer.rows:
        if row.error is not None:
            return "invalid_input" if row.invalid_input else "model"
    return None
