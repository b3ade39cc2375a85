"""Running the operator: the queue before and at the end of its work, what is measured, and how lines are logged."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from luthier_api.finetunejob import FineTuneJobStatus
from luthier_dev.paths import REPOSITORY
from luthier_operator.apply import Writes
from luthier_operator.model.actions import Plan
from luthier_operator.model.views import Key, Meta
from luthier_operator.ops import logs, metrics
from luthier_operator.ops.settings import Settings, SettingsError
from luthier_operator.store.store import Store
from luthier_operator.store.workqueue import RetryLater, WorkQueue

pytestmark = pytest.mark.unit

KEY = Key("FineTuneJob", "team", "reviews")


async def test_keys_that_are_woken_before_anybody_works_wait_and_their_age_counts_from_the_start() -> None:
    done = asyncio.Event()

    async def reconcile(_: str) -> None:
        done.set()
        await asyncio.Event().wait()

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=1)
    queue.wake("a")
    queue.wake("b")
    assert (queue.depth, queue.oldest_s) == (2, 0.0)
    working = asyncio.create_task(queue.run())
    await done.wait()
    assert queue.depth == 1, "b waits"
    assert 0.0 < queue.oldest_s < 5.0
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_a_queue_that_is_drained_ends_what_it_is_at_and_begins_nothing() -> None:
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), []

    async def reconcile(key: str) -> None:
        begun.set()
        await go_on.wait()
        ended.append(key)

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=1)
    queue.wake("a")
    queue.wake("b")
    working = asyncio.create_task(queue.run())
    await begun.wait()
    draining = asyncio.create_task(queue.drain(5))
    await asyncio.sleep(0)
    assert not draining.done()
    go_on.set()
    async with asyncio.timeout(5):
        await draining
        await working
    assert ended == ["a"]


async def test_what_takes_longer_than_the_drain_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def reconcile(_: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    queue: WorkQueue[str] = WorkQueue(reconcile, workers=1)
    queue.wake("a")
    working = asyncio.create_task(queue.run())
    await begun.wait()
    await queue.drain(0.01)
    assert "1 reconciles are cut off" in caplog.text
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What is logged, as JSON, once the test has ended its logging by looking."""
    stream, root = io.StringIO(), logging.getLogger()
    kept = (root.handlers[:], root.level)
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("json", "INFO")
    found = _Lines(stream)
    yield found
    root.handlers[:], root.level = kept


class _Lines(list[dict[str, Any]]):
    def __init__(self, stream: io.StringIO) -> None:
        super().__init__()
        self.stream = stream

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.mark.parametrize("error", [RetryLater("not yet"), RuntimeError("a bug")])
async def test_every_line_about_a_resource_names_it_also_those_of_errors(lines: _Lines, error: Exception) -> None:
    failed = asyncio.Event()

    async def reconcile(_: Key) -> None:
        logs.learned(generation=3)
        logs.learned(run="reviews-0123456789")
        logging.getLogger("some.library").info("on the way")
        failed.set()
        raise error

    def about(key: Key) -> Any:
        return logs.about(kind=key.kind, namespace=key.namespace, resource=key.name)

    queue: WorkQueue[Key] = WorkQueue(reconcile, workers=1, about=about)
    queue.wake(KEY)
    working = asyncio.create_task(queue.run())
    await failed.wait()
    await queue.drain(5)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    logging.getLogger("some.library").info("about nothing")
    *during, after = lines.read()
    assert len(during) == 2
    subject = {"kind": "FineTuneJob", "namespace": "team", "resource": "reviews", "generation": 3}
    for line in during:
        assert line.items() >= {**subject, "run": "reviews-0123456789"}.items()
    assert "resource" not in after


def resource(name: str, phase: str | None) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {}, **({"status": {"phase": phase}} if phase else {})}


def condition(type_: str, status: str, reason: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": ""}


def test_resources_that_need_somebody_are_counted_by_namespace_and_reason() -> None:
    store, registry = Store(), CollectorRegistry()
    failed = condition("Stalled", "True", "OutOfMemory")
    down = condition("Available", "False", "Unavailable")
    for number, conditions in enumerate([[failed], [failed], [condition("Stalled", "False", "x")], []]):
        raw = resource(f"r{number}", "Failed")
        store.put("FineTuneJob", {**raw, "status": {"phase": "Failed", "conditions": conditions}})
    for number, phase in enumerate(["Serving", "Failed", "Suspended", "Waiting"]):
        raw = resource(f"m{number}", phase)
        store.put("ModelDeployment", {**raw, "status": {"phase": phase, "conditions": [down]}})
    metrics.Conditions(store.stalled, store.unavailable, registry)
    text = generate_latest(registry).decode()
    stalled = [line for line in text.splitlines() if line.startswith("luthier_stalled_resources{")]
    assert stalled == ['luthier_stalled_resources{kind="FineTuneJob",namespace="team",reason="OutOfMemory"} 2.0']
    assert 'luthier_unavailable_modeldeployments{namespace="team"} 2.0' in text


def test_resources_are_counted_by_phase_without_parsing_them() -> None:
    store, registry = Store(), CollectorRegistry()
    for number, phase in enumerate(["Training", "Training", "Failed", None]):
        store.put("FineTuneJob", resource(f"r{number}", phase))
    metrics.Resources(store.phases, registry)
    text = generate_latest(registry).decode()
    for phase, count in {"Training": 2, "Failed": 1, "Pending": 1}.items():
        assert f'luthier_resources{{kind="FineTuneJob",phase="{phase}"}} {count}.0' in text


async def test_gpu_seconds_are_counted_as_they_are_added_to_a_status() -> None:
    class Applier:
        async def status(self, *_: object) -> int:
            return 2

    counter = metrics.GPU_SECONDS.labels("counted")
    before = FineTuneJobStatus.model_validate({"usage": {"gpuSeconds": 100}})
    meta = Meta("FineTuneJob", "counted", "reviews", "uid", 1)
    writes = Writes(Applier(), meta, 1, before, "2026-01-01T00:00:00Z")  # type: ignore[arg-type]
    await writes.carry_out(Plan(status={**before.to_wire(), "usage": {"gpuSeconds": 160}}))
    await writes.carry_out(Plan(status={**before.to_wire(), "phase": "Training"}))
    assert counter._value.get() == 60


IMAGES = {"LUTHIER_TRAINER_IMAGE": "t", "LUTHIER_SERVER_IMAGE": "s"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LUTHIER_LEASE_NAME": "luthier"}, "LUTHIER_LEASE_NAMESPACE is missing: say in which namespace the Lease is"),
        ({"LUTHIER_LEASE_DEADLINE_S": "10"}, "that less than LUTHIER_LEASE_DURATION_S"),
    ],
)
def test_terms_of_the_lease_that_could_let_two_lead_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_environment({**IMAGES, **environment})


def test_allowed_images_are_words() -> None:
    found = Settings.from_environment({**IMAGES, "LUTHIER_ALLOWED_IMAGES": "registry.example.com/ml/,trainer:1"})
    assert found.defaults().allowed_images == ("registry.example.com/ml/", "trainer:1")


def test_the_page_of_metrics_names_each_of_them() -> None:
    registry = CollectorRegistry()
    store = Store()
    metrics.Resources(store.phases, registry)
    metrics.Conditions(store.stalled, store.unavailable, registry)
    measured = {metric.name for metric in registry.collect()}
    for value in vars(metrics).values():
        if isinstance(value, Counter | Gauge | Histogram):
            measured |= {metric.name + "_total" * isinstance(value, Counter) for metric in value.collect()}
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"`(luthier_\w+)`", page)) == measured
