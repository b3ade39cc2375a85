"""The application at `/`: its builder, its user_config, the revision that it holds, and how it calls another one."""

import asyncio
import gzip
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from luthier_api.documents import Profile, ReferenceDocument, RevisionConfig, Route
from luthier_api.reasons import Reason
from luthier_dev.processes import free_ports
from luthier_operator.gather.pod_client import ReportReader
from luthier_serving.answers import Answer, ModelInfo, Row, Text
from luthier_serving.compute.model import LoadTimes
from luthier_serving.errors import LoadError, Overloaded, RequestError, Unavailable
from luthier_serving.replica import report
from support.serving.doubles import MODEL, answer, config
from support.serving.ray_applications import (
    handles,
    local_model,
    metrics,
    ray_exceptions,
    serve_exceptions,
    server,
)

pytestmark = pytest.mark.unit


def test_the_server_takes_only_what_shapes_its_process() -> None:
    assert server.app({})
    assert server.app({"gpusPerReplica": 1})
    assert server.deployment_options(1)["ray_actor_options"]["num_gpus"] == 1
    for args in ({"replicas": 2}, {"gpusPerReplica": "many"}):
        with pytest.raises(LoadError) as error:
            server.app(args)
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
            describe=SimpleNamespace(remote=lambda adapter=None: self._describe(name, adapter)),
            reference=SimpleNamespace(remote=lambda: self._reference(name)),
        )

    async def _predict(self, name: str, texts: list[Text]) -> Answer:
        self.calls.append(texts)
        await self._outcome(name)
        return answer(texts, version=name)

    async def _describe(self, name: str, adapter: str | None) -> ModelInfo:
        await self._outcome(name)
        return MODEL._replace(version=adapter or name)

    async def _reference(self, name: str) -> ReferenceDocument:
        await self._outcome(name)
        return REFERENCE.model_copy(update={"unknown_token_id": 7})

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
    monkeypatch.setattr(handles, "last_death", lambda revision: "")
    monkeypatch.setattr(handles, "ASK_AFTER_S", 0.0)
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


REFERENCE = ReferenceDocument(label_names=list(MODEL.labels), profile=Profile(texts=2, labels=[1, 1, 0]))
STABLE = RevisionConfig(name="one", model_uri="s3://m/m/versions/1", version="1", digest="sha256:" + "0" * 64)
NEXT = STABLE.model_copy(update={"name": "two", "version": "2"})


def routes(own: str = "", **weights: int) -> list[Route]:
    """Return routes; the revision `own` has an application of its own."""
    return [Route(revision=n, version=n, weight=w, own_application=n == own) for n, w in weights.items()]


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


class Loading:
    """Loads models by the name of their revision, when it may."""

    def __init__(self) -> None:
        self.may, self.failures, self.loaded = threading.Event(), list[LoadError](), list[str]()
        self.may.set()

    def __call__(self, config: RevisionConfig) -> Any:
        assert self.may.wait(10)
        if self.failures:
            raise self.failures.pop()
        self.loaded.append(config.name)
        info = MODEL._replace(version=config.name)
        return SimpleNamespace(
            info=info,
            times=LoadTimes(1.5, 2.5),
            predict=lambda texts: answer(texts).rows,
            work=None,
            reference=REFERENCE,
        )


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    found = Loading()
    monkeypatch.setattr(server, "load_model", found)
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="replica-1"))
    monkeypatch.setattr(server.serve, "get_replica_context", lambda: context)
    monkeypatch.setenv(server.PORT_ENV, str(free_ports(1)[0]))
    monkeypatch.setattr(local_model, "RETRY_S", 0.01)
    return found


@pytest.fixture
async def replica(revisions: Revisions, made: dict[str, Any], loading: Loading) -> AsyncIterator[Any]:
    found = server.ServerReplica()
    await found.reconfigure(config(stable=STABLE, routes=routes(one=100)).to_wire())
    yield found
    await found._report_site.cleanup()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def versions(replica: Any, count: int = 1) -> set[str]:
    return {(await replica._predictor.predict(["a"]))[1].model.version for _ in range(count)}


async def test_a_replica_is_there_once_it_holds_the_stable_revision(
    replica: Any, made: dict[str, Any], revisions: Revisions
) -> None:
    with TestClient(replica.__serve_build_asgi_app__()) as client:
        assert client.post("/predict", json={"texts": ["a", "b"]}).headers["X-Luthier-Version"] == "one"
        assert client.get("/readyz").json()["version"] == "one"
        assert client.post("/predict", json={}).status_code == 422
    [(one, answered), (_, failed)] = made["luthier_requests_total"]
    of_one = {"revision": "one", "version": "one"}
    assert (one, answered) == (1, {"code": "200", **of_one})
    assert failed == {"code": "422", "revision": "", "version": ""}
    assert made["luthier_batch_texts"] == [(2, of_one)]
    [(seconds, tags)] = made["luthier_request_seconds"]
    assert seconds > 0 and tags == of_one
    stages = {tags["stage"]: seconds for seconds, tags in made["luthier_stage_seconds"]}
    assert set(stages) == {"queue", "total"} and seconds > stages["total"] > stages["queue"] >= 0
    assert not revisions.looked_up, "nothing but this process was asked"


async def test_a_first_revision_that_cannot_be_loaded_ends_the_replica(
    revisions: Revisions, made: dict[str, Any], loading: Loading
) -> None:
    loading.failures = [LoadError(Reason.INTEGRITY_ERROR, "One byte differs.")]
    replica = server.ServerReplica()
    with pytest.raises(LoadError, match="One byte differs"):
        await replica.reconfigure(config(stable=STABLE, routes=routes(one=100)).to_wire())
    assert not replica._report().ready and replica._report().models[0].message == "IntegrityError: One byte differs."
    await replica._report_site.cleanup()


async def test_storage_that_refuses_is_asked_again_until_its_keys_are_mended(
    revisions: Revisions, made: dict[str, Any], loading: Loading
) -> None:
    loading.failures = [LoadError(Reason.STORAGE_DENIED, "The keys are wrong.")] * 3
    replica = server.ServerReplica()
    await replica.reconfigure(config(stable=STABLE, routes=routes(one=100)).to_wire())
    assert await versions(replica) == {"one"} and not loading.failures
    await replica._report_site.cleanup()


async def test_a_canary_gets_its_share_by_handle(replica: Any, revisions: Revisions) -> None:
    revisions.outcomes["two"] = [None]
    split = routes(own="two", one=50, two=50)
    await replica.reconfigure(config(stable=STABLE, routes=split, window="two/0").to_wire())
    assert await versions(replica, 4) == {"one", "two"}
    report = replica._report()
    assert report.window == "two/0" and {n: c.requests for n, c in report.counts.items()} == {"one": 2, "two": 2}


async def test_what_was_a_canary_is_loaded_while_its_own_application_answers(
    replica: Any, revisions: Revisions, loading: Loading
) -> None:
    revisions.outcomes["two"] = [None]
    loading.may.clear()
    promoted = config(stable=NEXT, routes=routes(own="two", two=100)).to_wire()
    async with asyncio.timeout(1):
        await replica.reconfigure(promoted)
    assert await versions(replica, 3) == {"two"} and len(revisions.calls) == 3
    assert [(m.revision, m.state) for m in replica._report().models] == [("two", "Loading")], "the old model went first"
    loading.may.set()
    await until(lambda: replica._report().models[0].state == "Ready")
    assert await versions(replica, 3) == {"two"} and len(revisions.calls) == 3, "now it computes in this process"
    await replica.reconfigure(config(stable=NEXT, routes=routes(two=100)).to_wire())
    assert await versions(replica) == {"two"} and loading.loaded == ["one", "two"]


async def test_in_place_the_old_revision_answers_until_the_new_one_is_loaded(replica: Any, loading: Loading) -> None:
    loading.may.clear()
    await replica.reconfigure(config(stable=NEXT, routes=routes(two=100)).to_wire())
    assert await versions(replica, 3) == {"one"}
    assert [(m.revision, m.state) for m in replica._report().models] == [("one", "Ready"), ("two", "Loading")]
    loading.may.set()
    await until(lambda: len(replica._report().models) == 1)
    assert await versions(replica, 3) == {"two"}


async def test_a_revision_that_cannot_be_loaded_in_place_is_tried_again_and_reported(
    replica: Any, loading: Loading
) -> None:
    loading.failures = [LoadError(Reason.INTEGRITY_ERROR, "One byte differs.")] * 3
    await replica.reconfigure(config(stable=NEXT, routes=routes(two=100)).to_wire())
    await until(lambda: replica._report().models[-1].state == "Failed")
    assert replica._report().models[-1].message == "IntegrityError: One byte differs."
    assert await versions(replica) == {"one"} and replica._report().ready
    await until(lambda: not loading.failures)
    await until(lambda: len(replica._report().models) == 1)
    assert await versions(replica) == {"two"}


async def test_a_library_that_says_pages_of_what_went_wrong_does_not_silence_the_report(
    replica: Any, loading: Loading
) -> None:
    loading.failures = [LoadError(Reason.INVALID_MODEL, "no " * 5000)] * 3
    await replica.reconfigure(config(stable=NEXT, routes=routes(two=100)).to_wire())
    await until(lambda: replica._report().models[-1].state == "Failed")
    assert replica._report().models[-1].message.startswith("InvalidModel: no no")


async def test_a_revision_that_is_not_wanted_any_more_when_it_is_loaded_is_not_taken(
    replica: Any, loading: Loading
) -> None:
    loading.may.clear()
    await replica.reconfigure(config(stable=NEXT, routes=routes(two=100)).to_wire())
    await asyncio.sleep(0.01)
    await replica.reconfigure(config(stable=STABLE, routes=routes(one=100)).to_wire())
    loading.may.set()
    await asyncio.sleep(0.05)
    assert await versions(replica, 3) == {"one"}
    assert [(m.revision, m.state) for m in replica._report().models] == [("one", "Ready")]


async def test_the_report_is_read_over_http_as_the_operator_does(replica: Any) -> None:
    reader = ReportReader(port=int(os.environ[server.PORT_ENV]))
    report = await reader.read("127.0.0.1")
    await reader.close()
    assert report == replica._report() and report is not None and report.ready


async def test_drift_is_counted_of_the_stable_revision_and_of_a_canary_by_its_own_reference(
    replica: Any, revisions: Revisions, made: dict[str, Any]
) -> None:
    revisions.outcomes["two"] = [None]
    observe = {"namespace": "team", "drift": {"windowS": 60}}
    split = routes(own="two", one=50, two=50)
    await replica.reconfigure(config(stable=STABLE, routes=split).to_wire() | {"observe": observe})
    assert await versions(replica, 4) == {"one", "two"}
    await replica._observing.tick(10)
    found = replica._report().drift
    assert {name: (each.reference, each.recent.texts) for name, each in found.items()} == {
        "one": (REFERENCE, 2),
        "two": (REFERENCE.model_copy(update={"unknown_token_id": 7}), 2),
    }
    assert {tags["revision"] for _, tags in made["luthier_drift_psi"]} == {"one", "two"}
    await replica.reconfigure(config(stable=STABLE, routes=routes(one=100)).to_wire())
    assert replica._report().drift is None, "and no word of it in the report of who does not ask"


async def test_a_replica_that_ends_writes_what_waits(replica: Any, tmp_path: Path) -> None:
    log = {"uri": tmp_path.as_uri(), "share": 1.0}
    observe = {"namespace": "team", "requestLog": log}
    await replica.reconfigure(config(stable=STABLE, routes=routes(one=100)).to_wire() | {"observe": observe})
    await versions(replica, 3)
    replica.__del__()
    [written] = tmp_path.rglob("*.jsonl.gz")
    assert written.relative_to(tmp_path).parts[:2] == ("team", "reviews") and written.name.startswith("replica-1-")
    assert len(gzip.decompress(written.read_bytes()).splitlines()) == 3


async def test_an_unknown_field_is_ignored_with_a_warning(replica: Any, caplog: pytest.LogCaptureFixture) -> None:
    # Ray's logger does not propagate once Serve has set it up.
    logger = logging.getLogger("ray.serve")
    logger.addHandler(caplog.handler)
    try:
        await replica.reconfigure(config(stable=STABLE, routes=routes(one=100)).to_wire() | {"shadow": 1})
    finally:
        logger.removeHandler(caplog.handler)
    assert [route.revision for route in replica._predictor.config.routes] == ["one"]
    assert "ignored the field 'shadow'" in caplog.text


async def test_a_revision_that_returns_after_it_was_removed_is_connected_anew(
    replica: Any, revisions: Revisions
) -> None:
    revisions.outcomes = {"two": [None]}
    for own in ("two", "", "two"):
        await replica.reconfigure(config(stable=STABLE, routes=routes(own=own, one=0, two=100)).to_wire())
        assert set(replica._clients) == ({"two"} if own else set()), "removed revisions are forgotten"
        if own:
            await replica._predictor.predict(["a"])
    assert revisions.looked_up == ["two", "two"]


async def test_it_is_ready_when_a_revision_with_weight_answers(
    replica: Any, revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READY_TIMEOUT_S", 0.01)
    revisions.outcomes = {"hangs": ["hangs"], "fails": [ray_exceptions.RayActorError()], "two": [None]}
    for own in ("hangs", "fails", "missing"):
        await replica.reconfigure(config(stable=STABLE, routes=routes(own=own, one=0, **{own: 100})).to_wire())
        with pytest.raises(Unavailable, match="No model answers yet"):
            await replica._ready()
    monkeypatch.setattr(server, "READY_TIMEOUT_S", 10)
    await replica.reconfigure(config(stable=STABLE, routes=routes(own="two", one=0, two=100)).to_wire())
    assert (await replica._ready()).version == "two"


async def test_a_replica_tells_how_long_its_first_model_took(replica: Any) -> None:
    start = replica._report().start
    assert (start.download_s, start.load_s) == (1.5, 2.5) and start.ready >= start.began


async def test_a_version_that_is_named_is_ready_when_that_one_answers(replica: Any, revisions: Revisions) -> None:
    revisions.outcomes = {"two": [None]}
    await replica.reconfigure(config(stable=STABLE, routes=routes(own="two", one=90, two=10)).to_wire())
    versions = {route.revision: route.version for route in replica._config.routes}
    assert (await replica._ready()).version != "two"
    assert (await replica._ready(versions["two"])).version == "two"
    assert await replica._discovery.is_ready(replica._config.model_name, versions["two"])


async def test_an_adapter_is_ready_when_the_model_or_the_canary_has_it(replica: Any, revisions: Revisions) -> None:
    with pytest.raises(Unavailable, match="The adapter films is not loaded yet"):
        await replica._ready(adapter="films")
    replica._local.held._adapters = SimpleNamespace(
        model=lambda name: SimpleNamespace(info=MODEL._replace(version=f"{name}-1")), want=lambda adapters: None
    )
    assert (await replica._ready(adapter="films")).version == "films-1"
    revisions.outcomes = {"two": [None]}
    await replica.reconfigure(config(stable=STABLE, routes=routes(own="two", one=10, two=90)).to_wire())
    assert (await replica._ready(adapter="films")).version == "films"


async def test_a_replica_whose_model_hangs_is_unhealthy_until_it_answers(replica: Any, loading: Loading) -> None:
    computing, may = threading.Event(), threading.Event()

    def predict(texts: list[Text]) -> list[Row]:
        computing.set()
        assert may.wait(10)
        return answer(texts).rows

    replica._local.held._model = SimpleNamespace(predict=predict, info=MODEL, work=None)
    asked = asyncio.create_task(replica._predictor.predict(["a"]))
    await until(computing.is_set)
    await replica.check_health()
    replica._config = replica._config.model_copy(update={"request_timeout_s": 0})
    with pytest.raises(RuntimeError, match="has been computing one batch for 0 s"):
        await replica.check_health()
    may.set()
    await asked
    await replica.check_health()


async def test_why_a_replica_of_a_canary_died_is_asked_of_ray_and_reported(
    replica: Any, revisions: Revisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(handles, "last_death", lambda name: asked.append(name) or "it was low on memory")
    revisions.outcomes["two"] = [ray_exceptions.RayActorError(), ray_exceptions.OutOfMemoryError("low"), None]
    await replica.reconfigure(config(stable=STABLE, routes=routes(own="two", one=0, two=100)).to_wire())
    assert await versions(replica, 2) == {"two"}
    await until(lambda: replica._report().deaths)
    assert replica._report().deaths == {"two": "it was low on memory"}
    assert asked == ["two"], "not once for each of its deaths"


def test_ray_is_asked_for_the_dead_replicas_of_a_revision_and_lack_of_memory_goes_before_other_causes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    causes: list[Any] = [
        {"actor_died_error_context": {"error_message": "The worker\n died."}},
        {"oom_context": {"error_message": "The node was running low on memory."}},
        None,
        {"creation_task_failure_context": {"error_message": "An error."}},
    ]

    def list_actors(**options: Any) -> list[Any]:
        asked.append(options["filters"])
        return [SimpleNamespace(death_cause=cause) for cause in causes]

    monkeypatch.setattr("ray.util.state.list_actors", list_actors)
    assert handles.last_death("rev-1") == "The node was running low on memory."
    assert asked == [[("class_name", "=", "ServeReplica:rev-1:Revision"), ("state", "=", "DEAD")]]
    del causes[1]
    assert handles.last_death("rev-1") == "An error."
    causes.clear()
    assert handles.last_death("rev-1") == ""
    monkeypatch.setattr("ray.util.state.list_actors", lambda **_: 1 / 0)
    assert handles.last_death("rev-1") == ""


def test_processes_that_the_kernel_killed_for_memory_are_counted_where_it_says_so(tmp_path: Path) -> None:
    second, first = tmp_path / "memory.events", tmp_path / "memory.oom_control"
    second.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    first.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    nowhere = tmp_path / "nowhere"
    assert [report.oom_kills(files) for files in ([second, first], [nowhere, first], [nowhere])] == [2, 4, 0]
    first.write_text("what is this")
    assert report.oom_kills([first]) == 0
