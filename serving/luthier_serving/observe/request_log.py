"""A sample of the requests, written to storage as gzipped JSON lines, by a thread of its own.

A request costs its caller one append to a list. What waits is bounded: what finds no room, or comes while the server is
busy, is dropped and counted. If storage fails, the object is kept and tried again at the next flush; meanwhile the rest
waits, and what no longer fits is dropped.
"""

import gzip
import itertools
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from luthier_api.documents import RequestLogConfig
from luthier_artifacts import StorageConfig, StorageError, open_store
from luthier_serving.observe.log_lines import LoggedRequest, json_lines

# Memory that requests may hold until they are written, and of these, those of one object.
MAX_WAITING_BYTES = 16 * 1024 * 1024
OBJECT_BYTES = 4 * 1024 * 1024
# For the last flush, when a replica ends.
CLOSE_TIMEOUT_S = 8.0
_READ_TIMEOUT_S = 5.0
_ATTEMPTS = 2

logger = logging.getLogger("ray.serve")
Write = Callable[[str, bytes], object]


class _Object(NamedTuple):
    key: str
    data: bytes
    requests: int


class RequestLog:
    """The log of one replica.

    Attributes:
        written, dropped: requests so far.

    Args:
        config: where, and how many.
        place: `<namespace>/<name>`, below the configured folder.
        replica: unique name of the replica, which begins the names of its objects.
        numbers: numbers its objects; goes on when the configuration changes.
        write: writes an object; by default to config.uri.
        draw: returns a number from 0 to 1, which decides whether a request is logged.
    """

    def __init__(
        self,
        config: RequestLogConfig,
        place: str,
        replica: str,
        numbers: "itertools.count[int]",
        *,
        write: Write | None = None,
        draw: Callable[[], float] = random.random,
    ):
        self.config = config
        self.written = self.dropped = 0
        self._place, self._replica, self._numbers, self._draw = place, replica, numbers, draw
        self._write = write or self._to_storage
        self._waiting: list[LoggedRequest] = []
        self._waiting_bytes = 0
        self._unsent: _Object | None = None
        self._failing = False
        self._lock, self._wake, self._ending = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def wants(self, *, busy: bool) -> bool:
        """Draw whether a request is logged; while the server is busy, one that is drawn is dropped."""
        if self._draw() >= self.config.share:
            return False
        if busy:
            self.dropped += 1
        return not busy

    def add(self, request: LoggedRequest) -> None:
        """Log a request, if there is room."""
        size = request.size_bytes
        with self._lock:
            if self._waiting_bytes + size > MAX_WAITING_BYTES:
                self.dropped += 1
                return
            self._waiting.append(request)
            self._waiting_bytes += size
            full = self._waiting_bytes >= OBJECT_BYTES
        if full and not self._failing:
            self._wake.set()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits, and end; what storage does not take in this time is lost."""
        self._ending.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        ending = False
        while not ending:
            self._wake.wait(self.config.flush_s)
            self._wake.clear()
            # Read before the flush: what came until then is in it.
            ending = self._ending.is_set()
            try:
                self._flush()
            except Exception:
                logger.exception("the request log failed")

    def _flush(self) -> None:
        """Write all that waits, object by object, until storage fails."""
        while self._unsent or self._waiting:
            if self._unsent is None:
                requests = self._take()
                try:
                    self._unsent = self._pack(requests)
                except Exception:
                    self.dropped += len(requests)
                    raise
            try:
                self._write(self._unsent.key, self._unsent.data)
            except StorageError as error:
                if not self._failing:
                    logger.warning("the request log cannot be written, and is tried again: %s", error)
                self._failing = True
                return
            self.written += self._unsent.requests
            self._unsent, self._failing = None, False

    def _take(self) -> list[LoggedRequest]:
        """Return the oldest requests that fill an object."""
        with self._lock:
            taken, size = 0, 0
            while taken < len(self._waiting) and (not taken or size < OBJECT_BYTES):
                size += self._waiting[taken].size_bytes
                taken += 1
            requests, self._waiting = self._waiting[:taken], self._waiting[taken:]
            self._waiting_bytes -= size
        return requests

    def _pack(self, requests: list[LoggedRequest]) -> _Object:
        day = datetime.fromtimestamp(requests[0].at, UTC).date().isoformat()
        key = f"{self._place}/{day}/{self._replica}-{next(self._numbers):06d}.jsonl.gz"
        text = "".join(line for request in requests for line in json_lines(request))
        # Without the time of packing, and quick: it takes a share of the server's CPU.
        return _Object(key, gzip.compress(text.encode(errors="replace"), compresslevel=3, mtime=0), len(requests))

    def _to_storage(self, key: str, data: bytes) -> None:
        storage = StorageConfig.from_access(self.config.access)
        storage = replace(storage, read_timeout_s=_READ_TIMEOUT_S, max_attempts=_ATTEMPTS)
        open_store(self.config.uri, storage).write(key, data)
