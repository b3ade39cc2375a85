"""The application at `/`: its builder, its user_config, when it is ready, and how it calls a revision."""

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from luthier_api.documents import Route
from luthier_api.reasons import Reason
from luthier_serving.answers import Answer, ModelInfo, Text
from luthier_serving.errors import LoadError, Overloaded, RequestError, Unavailable
from support.serving.doubles import MODEL, answer, config
from support.serving.ray_applications import front, handles, metrics, ray_exceptions, serve_exceptions

pytestmark = pytest.mark.unit


def test_the_front_takes_no_args() -> None:
    assert front.app({})
    with pytest.raises(LoadError, match="takes no args but got") as error:
        front.app({"replicas": 2})
    assert error.value.reason is Reason.CONFIG_ERROR and "\n" not in str(error.value)


class Revisions:
    """Revisions by name, as Ray's handles: each call takes the next outcome of its revision, and the last for ever."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[Any]] = {}
        self.looked_up: list[str] = []
        self.calls: list[list[Text]] = []

    def get_app_handle(self, name: str) -> Any:
        self.looked_up.append(name)
        if name not in self.outcomes:
            raise serve_exceptions.RayServeException(f"Application {name} does not exist")
        return SimpleNamespace(
            predict=SimpleNamespace(remote=lambda texts: self._predict(name, texts)),
            describe=SimpleNamespace(remote=lambda: self._describe(name)),
        )

    async def _predict(self, name: str, texts: list[Text]) -> Answer:
        self.calls.append(texts)
        await self._outcome(name)
        return answer(texts, version=name)

    async def _describe(self, name: str) -> ModelInfo:
        await self._outcome(name)
        return MODEL._replace(version=name)

    async def _outcome(self, name: str) -> None:
        outcomes = self.outcomes[name]
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        if outcome == "hangs":
            await asyncio.Event().wait()
        if isinstance(outcome, BaseException):
            raise outcome


@pytest.fixture
def revisions(monkeypatch: pytest.MonkeyPatch) -> Revisions:
    found = Revisions()
    monkeypatch.setattr(handles.serve, "get_app_handle", found.get_app_handle)
    return found


async def test_a_batch_whose_replica_dies_is_sent_again_over_a_new_handle(revisions: Revisions) -> None:
    revisions.outcomes["rev-1"] = [ray_exceptions.RayActorError(), ray_exceptions.RayActorError(), None]
    found = await handles.RevisionClient("rev-1").predict(["a", "b"])
    assert found == answer(["a", "b"], version="rev-1")
    assert revisions.calls == [["a", "b"]] * 3
    assert revisions.looked_up == ["rev-1"] * 3


async def test_a_handle_that_works_is_kept(revisions: Revisions) -> None:
    revisions.outcomes["rev-1"] = [None]
    client = handles.RevisionClient("rev-1")
    for _ in range(3):
        await client.predict(["a"])
    await client.describe()
    assert revisions.looked_up == ["rev-1"]


class ModelFailure(ray_exceptions.RayTaskError):
    """What a replica raises when its code does."""

    def __init__(self) -> None:
        Exception.__init__(self, "RuntimeError: out of luck")


@pytest.mark.parametrize(
    ("outcome", "expected", "calls", "words"),
    [
        (ray_exceptions.RayActorError(), Unavailable, 3, "The replicas of revision rev-1 keep failing"),
        (
            serve_exceptions.BackPressureError(num_queued_requests=7, max_queued_requests=7),
            Overloaded,
            1,
            "Too many requests",
        ),
        (
            serve_exceptions.DeploymentUnavailableError(SimpleNamespace(name="Revision", app_name="rev-1")),
            Unavailable,
            1,
            "rev-1",
        ),
        (serve_exceptions.RayServeException("no such application"), Unavailable, 1, "no such application"),
        (ModelFailure(), RequestError, 1, "the server's log says why"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_a_call_that_fails_becomes_one_sentence(
    revisions: Revisions, outcome: Exception, expected: type[RequestError], calls: int, words: str
) -> None:
    revisions.outcomes["rev-1"] = [outcome]
    with pytest.raises(RequestError, match=words) as error:
        await handles.RevisionClient("rev-1").predict(["a"])
    assert type(error.value) is expected
    assert len(revisions.calls) == calls


async def test_after_a_failure_the_handle_is_looked_up_again(revisions: Revisions) -> None:
    client = handles.RevisionClient("rev-1")
    with pytest.raises(Unavailable):
        await client.predict(["a"])
    revisions.outcomes["rev-1"] = [
        serve_exceptions.RayServeException("going down"),
        serve_exceptions.RayServeException("down"),
        None,
    ]
    with pytest.raises(Unavailable):
        await client.predict(["a"])
    with pytest.raises(Unavailable):
        await client.describe()
    assert (await client.describe()).version == "rev-1"
    assert revisions.looked_up == ["rev-1"] * 4


def routes(**weights: int) -> list[Route]:
    return [Route(revision=name, version=name, weight=weight) for name, weight in weights.items()]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Ray's metrics by name, which remember what is done to them."""
    instruments: dict[str, Any] = {}

    def make(name: str, **options: Any) -> Any:
        calls: list[Any] = []
        record: Callable[..., None] = lambda value, tags=None: calls.append((value, tags))  # noqa: E731
        instruments[name] = calls
        return SimpleNamespace(inc=record, observe=record, set=record)

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, make)
    return instruments


async def test_the_front_answers_with_the_revision_that_has_weight(revisions: Revisions, made: dict[str, Any]) -> None:
    revisions.outcomes = {"one": [None], "two": [None]}
    replica = front.FrontReplica()
    await replica.reconfigure(config(routes=routes(one=0, two=100)).to_wire())
    with TestClient(replica.__serve_build_asgi_app__()) as client:
        assert client.post("/predict", json={"texts": ["a", "b"]}).headers["X-Luthier-Version"] == "two"
        assert client.get("/readyz").json()["version"] == "two"
        assert client.post("/predict", json={}).status_code == 422
    [(one, answered), (_, failed)] = made["luthier_requests_total"]
    assert (one, answered, failed) == (1, {"code": "200", "revision": "two"}, {"code": "422", "revision": ""})
    assert made["luthier_batch_texts"] == [(2, {"revision": "two"})]
    assert made["luthier_pending_requests"] == [(0, None), (0, None)]
    [(seconds, tags)] = made["luthier_request_seconds"]
    assert seconds > 0 and tags == {"revision": "two"}


async def test_an_unknown_field_is_ignored_with_a_warning(
    revisions: Revisions, made: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    replica = front.FrontReplica()
    # Ray's logger does not propagate once Serve has set it up.
    logger = logging.getLogger("ray.serve")
    logger.addHandler(caplog.handler)
    try:
        await replica.reconfigure(config(routes=routes(one=100)).to_wire() | {"mirror": {"percent": 10}})
    finally:
        logger.removeHandler(caplog.handler)
    assert [route.revision for route in replica._predictor.config.routes] == ["one"]
    assert "ignored the field 'mirror'" in caplog.text


async def test_a_revision_that_returns_after_it_was_removed_is_connected_anew(
    revisions: Revisions, made: dict[str, Any]
) -> None:
    revisions.outcomes = {"one": [None], "two": [None]}
    replica = front.FrontReplica()
    for names in ({"one": 100}, {"two": 100}, {"one": 100}):
        await replica.reconfigure(config(routes=routes(**names)).to_wire())
        assert set(replica._clients) == set(names), "removed revisions are forgotten"
        await replica._predictor.predict(["a"])
    assert revisions.looked_up == ["one", "two", "one"]


async def test_the_front_is_ready_when_a_revision_with_weight_answers(
    revisions: Revisions, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "READY_TIMEOUT_S", 0.01)
    revisions.outcomes = {
        "hangs": ["hangs"],
        "fails": [ray_exceptions.RayActorError()],
        "idle": [None],
        "answers": [None],
    }
    replica = front.FrontReplica()
    with pytest.raises(Unavailable, match="No model answers yet"):
        await replica._ready()
    await replica.reconfigure(config(routes=routes(idle=0, hangs=30, fails=30, missing=20, answers=20)).to_wire())
    assert (await replica._ready()).version == "answers"
    await replica.reconfigure(config(routes=routes(idle=0, hangs=50, fails=50)).to_wire())
    with pytest.raises(Unavailable, match="No model answers yet"):
        await replica._ready()
