"""The progress of a batch prediction: one document, which the operator asks for at GET /progress.

It is of all workers together, since any of them sees in storage what all have done.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from luthier_api.documents import ProgressDocument, Stage


class Progress:
    """Written by one thread and read by others.

    Args:
        clock: monotonic seconds, for speed and time left.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._began, self._rows_before = clock(), 0
        self._document = ProgressDocument(stage="Starting", updated_at=_now())

    def enter(self, stage: Stage) -> None:
        """Record the stage that the worker enters."""
        self._update(stage=stage)

    def begin(self, shards: int, rows: int, shards_done: int, rows_done: int) -> None:
        """Begin to count, with what earlier attempts have done; speed is of what is done from now on."""
        self._began, self._rows_before = self._clock(), rows_done
        self._update(stage="Predicting", step=shards_done, total_steps=shards, rows=rows)

    def finish(self, shards_done: int, rows_done: int) -> None:
        """Record what all workers have done."""
        seconds, rows = self._clock() - self._began, self._document.rows or 0
        speed = max(rows_done - self._rows_before, 0) / seconds if seconds > 0 else 0.0
        left = {"eta_seconds": round((rows - rows_done) / speed, 1)} if speed else {}
        self._update(step=shards_done, examples_per_second=round(speed, 2), **left)

    def document(self) -> ProgressDocument:
        """Return the state as it is now."""
        with self._lock:
            return self._document

    def _update(self, **fields: object) -> None:
        with self._lock:
            self._document = self._document.model_copy(update={**fields, "updated_at": _now()})


class ProgressServer:
    """Answers GET /progress while the context is open.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, progress: Progress, host: str, port: int):
        self._server = ThreadingHTTPServer((host, port), _handler(progress))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
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


def _handler(progress: Progress) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A client that sends nothing must not hold a thread for ever.
        timeout = 10

        def do_GET(self) -> None:
            if self.path.split("?")[0] != "/progress":
                self.send_error(404, "There is /progress")
                return
            body = progress.document().to_json().encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            # The client may have disconnected; there is nobody left to answer.
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing: the log belongs to the work."""

    return Handler


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
