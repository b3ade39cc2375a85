"""The server's HTTP on a port, in a thread of this process: for tests of what lies in front of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import uvicorn

from luthier_dev.waiting import wait_until
from luthier_serving.replica.access import ApiKeys
from luthier_serving.replica.http import build_http
from luthier_serving.replica.revision_queue import SendBatch
from support.serving.doubles import RecordedRequests, config, predictor, ready


@contextlib.contextmanager
def serving(send: SendBatch, port: int, keys: ApiKeys | None = None, path_prefix: str | None = None) -> Iterator[None]:
    """Serve what computes batches, on all addresses of this machine."""
    app = build_http(predictor(send, "rev-1"), RecordedRequests(), ready, keys)
    app.configure(config(path_prefix=path_prefix))
    options = uvicorn.Config(app, host="0.0.0.0", port=port, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: None if server.started else "not started", "the server", timeout_s=20, interval_s=0.05)
        yield
    finally:
        server.should_exit = True
        thread.join(10)
