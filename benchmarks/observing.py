"""What observing costs: CPU time of a request in the server's process, with each part on and off.

The real predictor, queue and observer, and Ray's real metrics, around a model that answers at once: so the figures are
all overhead, none of it computation. Each text is a request of its own, one after the other (each a batch) and 32 at a
time (which share batches). CPU time is of all threads of this process, those of log and exporter included, until what
they hold is written. The parts take turns over the rounds; figures are the least, since others on the machine only add.

    python -m benchmarks.observing [--rounds 5] [--requests 20000] [--json FILE] [part ...]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from luthier_api.documents import RequestLogConfig, Route, ServerConfig, TracingConfig
from luthier_api.training import Task
from luthier_serving.answers import Answer, ModelInfo, Row, Text, Work
from luthier_serving.observe.drift import DriftWindows
from luthier_serving.observe.observer import Observer
from luthier_serving.observe.request_log import RequestLog
from luthier_serving.observe.tracing import Tracing
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.predictor import Predictor, Target

MODEL = ModelInfo("v1", "model.onnx", Task.TEXT_CLASSIFICATION, ("negative", "positive"), pairs=False, threshold=0.5)
TEXT = "The battery lasts all day and the screen is as clear as they say, though it came a week late."
TOGETHER = 32


async def respond(texts: list[Text]) -> Answer:
    rows = [Row([0.1, 0.9], tokens=22, unknown=1) for _ in texts]
    return Answer(rows, MODEL, "replica-1", Work(time.time_ns(), 0.001, 0.002, 22 * len(texts)))


def metrics() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        from luthier_serving.replica.metrics import ServerMetrics
    if not ray.is_initialized():
        ray.init(num_cpus=1, include_dashboard=False, configure_logging=False, object_store_memory=80_000_000)
    made = ServerMetrics()
    made.versions = {"rev-1": "v1"}
    return made


class Encoding:
    """An exporter that does all but send."""

    def export(self, spans: Any) -> Any:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.trace.export import SpanExportResult

        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


Part = Callable[[ExitStack], Observer]


def nothing(stack: ExitStack) -> Observer:
    return Observer()


def only_metrics(stack: ExitStack) -> Observer:
    return Observer(metrics())


def drift(stack: ExitStack) -> Observer:
    observer = Observer()
    observer.drift = DriftWindows(3600)
    return observer


def log(share: float) -> Part:
    def make(stack: ExitStack) -> Observer:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        observer = Observer()
        config = RequestLogConfig(uri=folder.as_uri(), share=share, flush_s=1)
        observer.log = RequestLog(config, "team/reviews", "replica-1", itertools.count(1))
        stack.callback(observer.log.close)
        return observer

    return make


def traces(share: float) -> Part:
    def make(stack: ExitStack) -> Observer:
        observer = Observer()
        config = TracingConfig(endpoint="http://nowhere", share=share)
        observer.tracing = Tracing(config, {"service.name": "team/reviews"}, exporter=Encoding())  # type: ignore[arg-type]
        stack.callback(observer.tracing.close)
        return observer

    return make


PARTS: dict[str, Part] = {
    "nothing": nothing,
    "metrics (always on)": only_metrics,
    "drift": drift,
    "request log, 1 %": log(0.01),
    "request log, 100 %": log(1.0),
    "traces, 1 %": traces(0.01),
    "traces, 100 %": traces(1.0),
}


async def ask(predictor: Predictor, requests: int, together: int) -> None:
    headers = {"x-request-id": "0123456789abcdef"}
    if together == 1:
        for _ in range(requests):
            await predictor.predict([TEXT], headers)
        return
    for _ in range(requests // together):
        await asyncio.gather(*(predictor.predict([TEXT], headers) for _ in range(together)))


def measure(part: Part, requests: int, together: int) -> float:
    """Return CPU microseconds of a request."""
    config = ServerConfig(model_name="reviews", routes=[Route(revision="rev-1", version="v1", weight=100)])
    with ExitStack() as stack:
        predictor = Predictor(Counters(), lambda revision, texts: None, part(stack))
        predictor.configure(config, [Target("rev-1", 100, True, respond)])
        asyncio.run(ask(predictor, requests // 20, together))
        before = time.process_time()
        asyncio.run(ask(predictor, requests, together))
        stack.close()
        return (time.process_time() - before) / requests * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--requests", type=int, default=20_000)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("parts", nargs="*", help="only parts that begin with one of these, beside nothing")
    asked = arguments.parse_args()
    parts = {
        name: part for name, part in PARTS.items() if not asked.parts or name.startswith(("nothing", *asked.parts))
    }
    if only_metrics in parts.values():
        metrics()  # starts Ray before anything is measured
    samples: dict[str, dict[int, list[float]]] = {name: {1: [], TOGETHER: []} for name in parts}
    for _ in range(asked.rounds):
        for (name, part), together in itertools.product(parts.items(), (1, TOGETHER)):
            samples[name][together].append(measure(part, asked.requests, together))
    found = {name: {each: min(values) for each, values in row.items()} for name, row in samples.items()}
    base = found["nothing"]
    print(f"| CPU microseconds of a request | one at a time | {TOGETHER} at a time |\n| --- | --- | --- |")
    for name, row in found.items():
        shown = (
            f"{row[each]:.1f}" if name == "nothing" else f"+{row[each] - base[each]:.1f}" for each in (1, TOGETHER)
        )
        print(f"| {name} | " + " | ".join(shown) + " |")
    if asked.json:
        asked.json.write_text(json.dumps(samples, indent=1) + "\n")


if __name__ == "__main__":
    main()
