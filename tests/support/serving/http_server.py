"""The server's HTTP with a real model, in a thread of this process: for tests of what lies in front of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from luthier_dev.waiting import wait_until
from luthier_serving.answers import ModelInfo
from luthier_serving.compute.model import open_model
from luthier_serving.replica.access import ApiKeys
from luthier_serving.replica.http import build_http
from luthier_serving.replica.local_model import HeldModel
from support.serving.doubles import RecordedRequests, config, predictor


@contextlib.contextmanager
def serving(artifact: Path, port: int, keys: ApiKeys | None = None, path_prefix: str | None = None) -> Iterator[None]:
    """Serve an artifact on all addresses of this machine."""
    model = HeldModel("rev-1", open_model(artifact, "onnxruntime", version="v1"), "replica-1")

    async def ready() -> ModelInfo:
        return model.info

    app = build_http(predictor(model.send, "rev-1"), RecordedRequests(), ready, keys)
    app.configure(config(path_prefix=path_prefix))
    server = uvicorn.Server(uvicorn.Config(app, host="0.0.0.0", port=port, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: None if server.started else "not started", "the server", timeout_s=20, interval_s=0.05)
        yield
    finally:
        server.should_exit = True
        thread.join(10)
