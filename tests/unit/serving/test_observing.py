"""What is observed follows the configuration without a restart, and is read by the clock."""

import asyncio
import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import ObserveConfig, Profile, ReferenceDocument, ServerConfig
from luthier_serving.errors import Unavailable
from luthier_serving.observe import observing
from luthier_serving.observe.log_lines import LoggedRequest
from luthier_serving.observe.observing import Observing
from support.serving.doubles import MODEL, answer, config

pytestmark = pytest.mark.unit

REFERENCE = ReferenceDocument(label_names=list(MODEL.labels), profile=Profile(texts=100, labels=[50, 50, 0]))


class Figures:
    """Gauges, remembered."""

    def __init__(self) -> None:
        self.queues: dict[str, tuple[int, float]] = {}
        self.drift: dict[str, tuple[int, Mapping[str, float]]] = {}
        self.logged = [0, 0]

    def set_queue(self, revision: str, texts: int, oldest_s: float) -> None:
        self.queues[revision] = (texts, oldest_s)

    def set_drift(self, revision: str, texts: int, figures: Mapping[Any, float]) -> None:
        self.drift[revision] = (texts, dict(figures))

    def add_logged(self, written: int, dropped: int) -> None:
        self.logged = [self.logged[0] + written, self.logged[1] + dropped]

    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


class Replica:
    """What is observed, with the references and queues of a replica."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(observing, "TICK_S", 3600)  # the tests are the clock
        self.figures, self.queues = Figures(), {"rev-1": (0, 0.0)}
        self.references: dict[str, ReferenceDocument | None] = {"rev-1": REFERENCE}
        self.asked: list[str] = []
        self.observing = Observing(self.figures, "replica-1", lambda: self.queues, self.reference)  # type: ignore[arg-type]

    async def reference(self, revision: str) -> ReferenceDocument | None:
        self.asked.append(revision)
        if revision not in self.references:
            raise Unavailable("It does not run yet.")
        return self.references[revision]

    async def apply(self, **parts: Any) -> None:
        await self.observing.apply(self.config(**parts))

    @staticmethod
    def config(**parts: Any) -> ServerConfig:
        return config(observe=ObserveConfig.model_validate({"namespace": "team", **parts}) if parts else None)

    @property
    def observer(self) -> Any:
        return self.observing.observer


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Replica:
    return Replica(monkeypatch)


def log_to(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"uri": folder.as_uri(), "share": 1.0, **changes}


def logged(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl.gz"))


def request() -> LoggedRequest:
    return LoggedRequest(*(1_767_225_600.0, "id-1", "rev-1", 0.01, 200, 1, None, answer(["a"]), None))


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


async def test_parts_are_switched_on_and_off_live(replica: Replica, tmp_path: Path) -> None:
    trace = {"endpoint": "http://x", "share": 1}
    await replica.apply()
    assert (replica.observer.drift, replica.observer.log, replica.observer.tracing) == (None, None, None)
    await replica.apply(drift={"windowS": 60}, requestLog=log_to(tmp_path), tracing=trace)
    drift, log, tracing = replica.observer.drift, replica.observer.log, replica.observer.tracing
    assert drift and log and tracing
    await replica.apply(drift={"windowS": 60}, requestLog=log_to(tmp_path), tracing=trace)
    assert (replica.observer.drift, replica.observer.log, replica.observer.tracing) == (drift, log, tracing), (
        "as before"
    )
    await replica.apply(drift={"windowS": 30})
    assert replica.observer.drift is not drift and replica.observer.drift.window_s == 30
    assert (replica.observer.log, replica.observer.tracing) == (None, None)
    await asyncio.gather(*replica.observing._ending)
    assert "request-log" not in threads()


async def test_what_waits_in_a_log_is_written_when_it_is_switched_off_or_moves(
    replica: Replica, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    await replica.apply(requestLog=log_to(one))
    replica.observer.log.add(request())
    await replica.apply(requestLog=log_to(other))
    replica.observer.log.add(request())
    await asyncio.gather(*replica.observing._ending)
    assert logged(one) == ["team/reviews/2026-01-01/replica-1-000001.jsonl.gz"]
    replica.observing.close()
    assert logged(other) == ["team/reviews/2026-01-01/replica-1-000002.jsonl.gz"], "no name comes twice"
    replica.observing.close()


async def test_what_became_of_logged_requests_is_counted(replica: Replica, tmp_path: Path) -> None:
    await replica.apply(requestLog=log_to(tmp_path, flushS=0.001))
    log = replica.observer.log
    log.wants(busy=True)
    log.add(request())
    async with asyncio.timeout(10):
        while not log.written:
            await asyncio.sleep(0.001)
    for number in (1, 2):
        await replica.observing.tick(number)
        assert replica.figures.logged == [1, 1]
    replica.observing.close()


async def test_drift_is_reported_with_the_reference_once_that_is_known(replica: Replica) -> None:
    await replica.apply()
    assert replica.observing.report() is None
    replica.references.clear()
    await replica.apply(drift={"windowS": 60})
    replica.observer.drift.add("rev-1", answer(["a", "b"]))
    await replica.observing.tick(1)
    assert replica.observing.report() == {}, "the revision cannot be asked yet"
    replica.references["rev-1"] = REFERENCE
    for number in (2, 3):
        await replica.observing.tick(number)
    assert replica.asked == ["rev-1"] * 2, "it is asked until it answers, and not again"
    found = replica.observing.report()
    assert found and found["rev-1"].reference == REFERENCE and found["rev-1"].recent.labels == [0, 2, 0]


async def test_a_version_without_a_reference_is_reported_as_one(replica: Replica) -> None:
    replica.references["rev-1"] = None
    await replica.apply(drift={"windowS": 60})
    await replica.observing.tick(1)
    found = replica.observing.report()
    assert found and found["rev-1"].reference is None


async def test_the_figures_of_drift_and_of_queues_are_gauges_and_those_of_a_gone_revision_go_to_zero(
    replica: Replica,
) -> None:
    await replica.apply(drift={"windowS": 60})
    replica.observer.drift.add("rev-1", answer(["a", "b", "c"]))
    replica.queues = {"rev-1": (7, 1.5)}
    for number in range(1, observing.DRIFT_TICKS + 1):
        await replica.observing.tick(number)
    texts, figures = replica.figures.drift["rev-1"]
    assert texts == 3 and figures["labels"] > 0.25 and set(figures) == {"labels"}, "what the reference has"
    assert replica.figures.queues == {"rev-1": (7, 1.5)}
    replica.queues = {}
    await replica.observing.tick(1)
    assert replica.figures.queues == {"rev-1": (0, 0.0)}
    assert replica.figures.drift["rev-1"][0] == 0 and not any(replica.figures.drift["rev-1"][1].values())


async def test_an_image_without_opentelemetry_traces_nothing_and_says_so(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")

    monkeypatch.setattr(observing, "Tracing", missing)
    observing.logger.addHandler(caplog.handler)
    try:
        await replica.apply(tracing={"endpoint": "http://x", "share": 1})
    finally:
        observing.logger.removeHandler(caplog.handler)
    assert replica.observer.tracing is None and "lacks opentelemetry" in caplog.text


async def test_the_clock_goes_on_when_a_tick_fails(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "TICK_S", 0.001)
    ticks = itertools.count(1)

    async def tick(number: int) -> None:
        next(ticks)
        raise RuntimeError("a bug")

    monkeypatch.setattr(replica.observing, "tick", tick)
    await replica.apply()
    async with asyncio.timeout(10):
        while next(ticks) < 5:
            await asyncio.sleep(0.001)
