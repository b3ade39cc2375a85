"""Revisions without Ray. Every text has values of its own: an answer that reaches the wrong client is noticed."""

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any

from luthier_api.documents import Route, ServerConfig
from luthier_api.training import Task
from luthier_serving.answers import Answer, ModelInfo, Row, Text
from luthier_serving.replica.counters import Counters
from luthier_serving.replica.predictor import Predictor, Target
from luthier_serving.replica.revision_queue import SendBatch

MODEL = ModelInfo("v1", "model.onnx", Task.TEXT_CLASSIFICATION, ("negative", "positive"), pairs=False, threshold=0.5)


def row(text: Text) -> Row:
    """Return the row of a text: its label is always positive, its probabilities are its own."""
    if "poison" in text:
        return Row([], "The model failed on this text.")
    positive = round(0.5 + (zlib.crc32(repr(text).encode()) % 499_999 + 1) / 1_000_000, 6)
    return Row([round(1 - positive, 6), positive])


def answer(texts: Sequence[Text], version: str = "v1") -> Answer:
    return Answer([row(text) for text in texts], MODEL._replace(version=version), "replica-1")


async def respond(texts: list[Text], adapter: str | None = None, /) -> Answer:
    return answer(texts)


class HeldRevision:
    """A revision that answers when it is released; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[Text]] = []
        self.adapters: list[str | None] = []
        self.started = asyncio.Event()
        self.released = asyncio.Event()

    async def send(self, texts: list[Text], adapter: str | None = None, /) -> Answer:
        self.batches.append(texts)
        self.adapters.append(adapter)
        self.started.set()
        await self.released.wait()
        return answer(texts)


class RecordedRequests:
    """The server's metrics, remembered."""

    def __init__(self) -> None:
        self.codes: list[tuple[int, str]] = []
        self.seconds: list[float] = []
        self.pending: list[int] = []

    def observe_request(self, code: int, revision: str, seconds: float, pending: int) -> None:
        self.codes.append((code, revision))
        self.seconds.append(seconds)
        self.pending.append(pending)


def config(**changes: Any) -> ServerConfig:
    routes = [Route(revision="rev-1", version="v1", weight=100)]
    return ServerConfig(**({"model_name": "reviews", "routes": routes} | changes))


def targets(send: SendBatch, config: ServerConfig, local: str = "") -> list[Target]:
    """Return a target for each route, all of which send alike; `local` is computed in the process itself."""
    return [Target(route.revision, route.weight, route.revision == local, send) for route in config.routes]


def predictor(send: SendBatch, local: str = "", **changes: Any) -> Predictor:
    made = Predictor(Counters(), lambda revision, texts: None)
    made.configure(config(**changes), targets(send, config(**changes), local))
    return made


async def ready(version: str | None = None, adapter: str | None = None) -> ModelInfo:
    return MODEL if adapter is None else MODEL._replace(version=adapter)
