"""Spans of the requests that are sampled, sent by OTLP over HTTP. The only module that imports OpenTelemetry.

    predict                 a request, from admission to answer; child of the caller's span, if it sent a traceparent
    ├── queue               until its texts have left in a batch
    └── batch               the batch, in the trace of the first sampled request in it, with links to all of them
        ├── tokenize
        └── compute

A request whose batch is in another's trace links to it. What a canary does in another process comes back over the
handle, as the `Work` in its answer, so that the canary needs neither exporter nor configuration. A thread of
the SDK exports the spans from a bounded queue: what finds no room there is lost.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from luthier_api.documents import TracingConfig
from luthier_serving.answers import Answer

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

TRACES_PATH = "/v1/traces"
EXPORT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 5.0
SCOPE = "luthier_serving"

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, eq=False)
class RequestTrace:
    """A request that is sampled: its span, and the context of its children."""

    span: "Span"
    context: "Context"


# The request that the present task answers, if it is sampled.
CURRENT: ContextVar[RequestTrace | None] = ContextVar("luthier_trace", default=None)


class Tracing:
    """Makes the spans of one replica.

    Args:
        config: where to, and how many.
        resource: attributes of every span's resource.
        exporter: by default OTLP over HTTP to config.endpoint.
        draw: returns a number from 0 to 1, which decides whether a request without a traceparent is sampled.

    Raises:
        ImportError: the image has no OpenTelemetry.
    """

    def __init__(
        self,
        config: TracingConfig,
        resource: Mapping[str, str],
        *,
        exporter: "SpanExporter | None" = None,
        draw: Callable[[], float] = random.random,
    ):
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.config = config
        self._draw = draw
        self._api = trace
        self._propagator = TraceContextTextMapPropagator()
        # Not the global one, which belongs to whoever runs this process. Requests are sampled in `begin`.
        self._provider = TracerProvider(
            resource=Resource.create(dict(resource)), sampler=ALWAYS_ON, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _otlp(config.endpoint)))
        self._tracer = self._provider.get_tracer(SCOPE)

    def begin(self, headers: Mapping[str, str]) -> RequestTrace | None:
        """Begin the span of a request; None if it is not sampled."""
        parent = None
        if header := headers.get("traceparent"):
            carrier = {"traceparent": header, "tracestate": headers.get("tracestate") or ""}
            parent = self._propagator.extract(carrier)
            caller = self._api.get_current_span(parent).get_span_context()
            if caller.is_valid and not caller.trace_flags.sampled:
                return None
            parent = parent if caller.is_valid else None
        if parent is None and self._draw() >= self.config.share:
            return None
        span = self._tracer.start_span("predict", context=parent, kind=self._api.SpanKind.SERVER)
        return RequestTrace(span, self._api.set_span_in_context(span))

    def end(self, trace: RequestTrace, status: int, attributes: Mapping[str, str | int]) -> None:
        """End the span of a request."""
        trace.span.set_attributes({"http.response.status_code": status, **attributes})
        if status >= 500:
            trace.span.set_status(self._api.StatusCode.ERROR)
        trace.span.end()

    def batch(
        self,
        waits: Mapping[RequestTrace, float],
        left: float,
        answer: Answer | None,
        attributes: Mapping[str, str | int],
    ) -> None:
        """Make the spans of a batch that has come back.

        Args:
            waits: the sampled requests in it, and since when the first of their texts in it has waited.
            left: when the batch left the queue; both in seconds by time.monotonic().
            answer: None if the batch failed.
            attributes: of the batch.
        """
        now_ns, now = time.time_ns(), time.monotonic()

        def wall_ns(moment: float) -> int:
            return now_ns - int((now - moment) * 1e9)

        traces = list(waits)
        for trace, since in waits.items():
            self._span("queue", trace.context, wall_ns(since), wall_ns(left))
        links = [self._api.Link(trace.span.get_span_context()) for trace in traces]
        span = self._tracer.start_span(
            "batch", context=traces[0].context, links=links, start_time=wall_ns(left), attributes=dict(attributes)
        )
        for trace in traces[1:]:
            trace.span.add_link(span.get_span_context())
        if answer is None:
            span.set_status(self._api.StatusCode.ERROR)
        elif work := answer.work:
            inside, tokenized_ns = self._api.set_span_in_context(span), work.started_ns + int(work.tokenize_s * 1e9)
            self._span("tokenize", inside, work.started_ns, tokenized_ns)
            self._span("compute", inside, tokenized_ns, tokenized_ns + int(work.compute_s * 1e9))
        span.end(end_time=now_ns)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Export what is left, and end; what a collector does not take in this time is lost."""
        # The SDK would wait for half a minute.
        ending = threading.Thread(target=self._provider.shutdown, name="end-of-traces", daemon=True)
        ending.start()
        ending.join(timeout_s)

    def _span(self, name: str, context: "Context", start_ns: int, end_ns: int) -> None:
        self._tracer.start_span(name, context=context, start_time=start_ns).end(end_time=end_ns)


def _otlp(endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + TRACES_PATH
    return OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
