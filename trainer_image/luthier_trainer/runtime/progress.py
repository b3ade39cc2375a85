"""The progress of the run: one document, served at GET /progress and as Prometheus metrics at GET /metrics.

The training thread updates `Progress`; `ProgressServer` serves it from other threads. The operator reads it to show
progress and to restart a run that is stuck. Needs no torch.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from luthier_api.documents import ProgressDocument, Stage
from luthier_trainer.runtime.errors import InvalidSpec

_WINDOW_STEPS = 50
_LONGEST_SENTENCE = 500


class Progress:
    """The state of a run, written by one thread and read by others.

    Args:
        clock: monotonic seconds, for speed and time left.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._first_step = 0
        self._last = 0.0
        # (seconds, examples, tokens) of the latest steps.
        self._window: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW_STEPS)
        self._document = ProgressDocument(stage="Starting", updated_at=_now())

    def enter(self, stage: Stage) -> None:
        """Record the stage that the run enters."""
        self._update(stage=stage, waiting_for=None)

    def wait_for(self, run: str) -> None:
        """Record that another run, which trains the same, is waited for."""
        self._update(stage="Waiting", waiting_for=run)

    def begin_steps(self, total_steps: int, step: int = 0) -> None:
        """Start counting optimizer steps, of which `step` were done by an earlier attempt."""
        self._began = self._last = self._clock()
        self._first_step = step
        self._update(stage="Training", total_steps=total_steps, step=step)

    def finish_step(self, step: int, epoch: float, *, examples: int, tokens: int) -> None:
        """Count an optimizer step of so many examples and real tokens, over all processes.

        Speed is that of the latest steps alone. The time left is that of this attempt's steps with all that lay between
        them, because evaluations and checkpoints will lie between those to come as well.
        """
        assert self._began is not None, "begin_steps comes first"
        now = self._clock()
        self._window.append((now - self._last, examples, tokens))
        self._last = now
        left, done = max(0, self._document.total_steps - step), step - self._first_step
        seconds = sum(each for each, _, _ in self._window)
        speed: dict[str, float] = {}
        if seconds > 0:
            speed = {
                "eta_seconds": round(left * (now - self._began) / max(1, done), 1),
                "examples_per_second": round(sum(each for _, each, _ in self._window) / seconds, 2),
                "tokens_per_second": round(sum(each for _, _, each in self._window) / seconds, 1),
            }
        self._update(step=step, epoch=epoch, **speed)

    def pause(self) -> None:
        """Exclude the time since the last step from the speed: it was not training."""
        self._last = self._clock()

    def end_steps(self) -> None:
        """Record that training is over; steps that early stopping skipped do not count."""
        self._update(total_steps=self._document.step, eta_seconds=0.0)

    def record_gpu_memory(self, most_bytes: int) -> None:
        """Record the peak memory of the GPU."""
        self._update(gpu_memory_bytes=most_bytes)

    def resume(self, step: int) -> None:
        """Record that this attempt resumes after the `step` steps of an earlier one."""
        self._update(resumed_from_step=step, checkpoint_step=step, step=step)

    def record_checkpoint(self, step: int) -> None:
        """Record the newest checkpoint in storage."""
        self._update(checkpoint_step=step, storage_failure=None)

    def record_storage_failure(self, why: str | None) -> None:
        """Record what cannot be stored, or read, at present and why; None once that is over."""
        self._update(storage_failure=why and why[:_LONGEST_SENTENCE])

    def record_waiting(self, why: str | None) -> None:
        """Record why the run itself waits for storage; None once it goes on."""
        self.record_storage_failure(why and f"The run waits for storage: {why}")

    def record_metrics(self, values: Mapping[str, float]) -> None:
        """Record the latest values of metrics; values that are not finite are skipped."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._update(metrics=self._document.metrics | finite)

    def document(self) -> ProgressDocument:
        """Return the state as it is now."""
        with self._lock:
            return self._document

    def _update(self, **fields: object) -> None:
        with self._lock:
            self._document = self._document.model_copy(update={**fields, "updated_at": _now()})


class ProgressCollector(Collector):
    """Prometheus metrics, made from the document when they are asked for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics."""
        document = self._progress.document()
        stage = GaugeMetricFamily("luthier_training_stage", "1 for the current stage.", labels=["stage"])
        stage.add_metric([document.stage], 1)
        yield stage
        gauges = {
            "step": ("Optimizer steps done.", document.step),
            "steps_total_planned": ("Optimizer steps in total.", document.total_steps),
            "epoch": ("Epochs done.", document.epoch),
            "eta_seconds": ("Seconds left at the current speed.", document.eta_seconds),
            "examples_per_second": ("Training examples per second.", document.examples_per_second),
            "tokens_per_second": ("Real training tokens per second.", document.tokens_per_second),
            "gpu_memory_bytes": ("Peak memory of the GPU.", document.gpu_memory_bytes),
        }
        for name, (text, value) in gauges.items():
            if value is not None:
                yield GaugeMetricFamily(f"luthier_training_{name}", text, value=value)
        values = GaugeMetricFamily("luthier_training_metric", "Latest value of a metric.", labels=["metric"])
        for name, value in sorted(document.metrics.items()):
            values.add_metric([name], value)
        yield values


class ProgressServer:
    """Serves GET /progress, /metrics and /healthz while the context is open.

    Raises:
        InvalidSpec: when the port is taken.
    """

    def __init__(self, progress: Progress, host: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(ProgressCollector(progress))
        answers: dict[str, Callable[[], tuple[str, bytes]]] = {
            "/progress": lambda: ("application/json", progress.document().to_json().encode()),
            "/metrics": lambda: (CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: ("text/plain; charset=utf-8", b"ok\n"),
        }
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(answers))
        except OSError as error:
            raise InvalidSpec(f"Port {port} cannot be used ({error.strerror}); choose another with --port.") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on; a free one if 0 was requested."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(answers: Mapping[str, Callable[[], tuple[str, bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A client that sends nothing must not hold a thread for ever.
        timeout = 10

        def do_GET(self) -> None:
            answer = answers.get(self.path.split("?")[0])
            if answer is None:
                self.send_error(404, "There is /progress, /metrics and /healthz")
                return
            content_type, body = answer()
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            # The client may have disconnected; there is nobody left to answer.
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing: the log belongs to the training."""

    return Handler


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
