"""Which training pods are asked, and when: fairly, once an interval, and a resource is woken only by a change."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from luthier_api.documents import ProgressDocument
from luthier_operator.gather.pod_client import ProgressReader
from luthier_operator.gather.progress_poller import ProgressPoller, pod_to_ask
from luthier_operator.model.views import JobView, Key, Meta, PodView
from luthier_operator.store.store import Store

pytestmark = pytest.mark.unit

HANGS = "127.0.61.1"
ANSWERS = "127.0.61.2"
OTHER = "127.0.61.3"


def job(owner: str = "resource", **changes: Any) -> JobView:
    given = {
        "namespace": "team",
        "name": "reviews-train",
        "uid": f"job of {owner}",
        "owner_uid": owner,
        "run": "reviews",
        "stage": "train",
        "spec_hash": "",
        "run_key": None,
        "suspended": False,
        "deleting": False,
        "ttl_s": None,
        "failed": 0,
        "outcome": None,
        "reason": "",
        "message": "",
    }
    return JobView(**{**given, **changes})


def pod(owner: str = "resource", ip: str | None = ANSWERS, **changes: Any) -> PodView:
    given = {
        "name": "pod",
        "uid": f"pod of {owner}",
        "owner_uid": f"job of {owner}",
        "phase": "Running",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "ip": ip,
    }
    return PodView(**{**given, **changes})


@pytest.mark.parametrize(
    ("jobs", "pods", "asked"),
    [
        pytest.param([job()], [pod()], "pod", id="the pod of the training"),
        pytest.param(
            [job()], [pod(), pod(name="newer", created_at=datetime(2026, 1, 2, tzinfo=UTC))], "newer", id="the newest"
        ),
        pytest.param([job()], [pod(index=1), pod(name="first")], "first", id="the first node's"),
        pytest.param([job(stage="predict")], [pod(index=3)], "pod", id="any worker of a batch prediction"),
        pytest.param([job()], [pod(phase="Pending")], None, id="one that does not run"),
        pytest.param([job()], [pod(phase="Succeeded")], None, id="one that has ended"),
        pytest.param([job()], [pod(ip=None)], None, id="one without an address"),
        pytest.param([job(stage="prepare")], [pod()], "pod", id="the pod of prepare, which may wait for another run"),
        pytest.param([job(stage="prune")], [pod()], None, id="one of a Job that removes versions"),
        pytest.param([job(outcome="Complete")], [pod()], None, id="one of a Job that has ended"),
        pytest.param([job()], [pod(owner_uid="")], None, id="one with our labels and no owner"),
        pytest.param([job()], [pod(owner_uid="resource")], None, id="one that names the resource as its owner"),
        pytest.param([job(owner_uid="other")], [pod()], None, id="one of another resource's Job"),
    ],
)
def test_only_a_running_pod_of_the_resources_own_live_run_is_asked(
    jobs: list[JobView], pods: list[PodView], asked: str | None
) -> None:
    found = pod_to_ask(jobs, pods, "resource")
    assert (found.name if found else None) == asked


class Known(Store):
    """A store with one Job and one pod for each resource."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Key, tuple[JobView, PodView]] = {}

    def jobs(self, key: Key) -> list[JobView]:
        return [self.known[key][0]] if key in self.known else []

    def pods(self, key: Key) -> list[PodView]:
        return [self.known[key][1]] if key in self.known else []


class Pods:
    """Training pods that answer on addresses of this machine, and the store that knows of them."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: Counter[str] = Counter()
        self.document: Callable[[], dict[str, Any]] = lambda: {"step": 1}
        self.woken: asyncio.Queue[Key] = asyncio.Queue()
        self.over = asyncio.Event()
        self.store = Known()

    def add(self, name: str, ip: str, namespace: str = "team", **changes: Any) -> Meta:
        key = Key("FineTuneJob", namespace, name)
        uid = f"{namespace}/{name}"
        self.store.known[key] = job(uid), pod(uid, ip, **changes)
        return Meta("FineTuneJob", namespace, name, uid, 1)

    def remove(self, meta: Meta) -> None:
        del self.store.known[meta.key]

    async def answer(self, request: web.Request) -> web.Response:
        address = request.transport.get_extra_info("sockname")[0] if request.transport else ""
        self.requests[address] += 1
        if address == HANGS:
            await self.over.wait()
        document = ProgressDocument.model_validate(
            {"stage": "Training", "updated_at": "2026-01-01T00:00:00Z", **self.document()}
        )
        return web.Response(text=document.to_json())

    @asynccontextmanager
    async def poller(self, interval_s: float = 0.05, timeout_s: float = 0.3, **slots: int) -> AsyncIterator[Any]:
        reader = ProgressReader(timeout_s, self.port)
        poller = ProgressPoller(self.store, reader, self.woken.put_nowait, interval_s=interval_s, **slots)
        try:
            yield poller
        finally:
            await poller.close()

    async def asked(self, address: str, times: int) -> None:
        """Return when a pod has been asked so often."""
        async with asyncio.timeout(5):
            while self.requests[address] < times:
                await asyncio.sleep(0.005)


@pytest.fixture
async def pods() -> AsyncIterator[Pods]:
    pods = Pods()
    application = web.Application()
    application.router.add_get("/progress", pods.answer)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    for address in (HANGS, ANSWERS, OTHER):
        site = web.TCPSite(runner, address, pods.port)
        await site.start()
        pods.port = runner.addresses[0][1]
    yield pods
    pods.over.set()
    await runner.cleanup()


async def test_a_reconcile_does_not_wait_for_the_answer_and_is_woken_by_it(pods: Pods) -> None:
    meta = pods.add("reviews", ANSWERS)
    async with pods.poller() as poller:
        assert poller.newest(meta) is None
        assert await asyncio.wait_for(pods.woken.get(), 5) == meta.key
        assert poller.newest(meta).step == 1


async def test_only_a_figure_that_is_shown_and_changed_wakes(pods: Pods) -> None:
    steps, left = iter([1, 1, 1, 1, 2]), itertools.count(100)
    pods.document = lambda: {
        "step": next(steps, 2),
        "eta_seconds": next(left),
        "tokens_per_second": next(left),
        "metrics": {"loss": 0.5 + next(left) / 1e9},  # the same in as many digits as are shown
    }
    meta = pods.add("reviews", ANSWERS)
    async with pods.poller() as poller:
        poller.newest(meta)
        await pods.asked(ANSWERS, 4)
        first = poller.newest(meta)
        assert (first.step, first.eta_seconds, pods.woken.qsize()) == (1, 100, 1)
        await pods.asked(ANSWERS, 8)
        assert (poller.newest(meta).step, pods.woken.qsize()) == (2, 2)


async def test_a_pod_is_asked_once_an_interval_however_often_its_resource_is_reconciled(pods: Pods) -> None:
    meta = pods.add("reviews", ANSWERS)
    async with pods.poller(interval_s=0.1) as poller:
        poller.newest(meta)
        await pods.asked(ANSWERS, 1)
        begun = asyncio.get_running_loop().time()
        while pods.requests[ANSWERS] < 5:
            poller.newest(meta)
            await asyncio.sleep(0.002)
        took = asyncio.get_running_loop().time() - begun
    assert took >= 2 * 0.1, "the first of the four may have been seen late"


async def test_a_namespace_full_of_pods_that_hang_does_not_delay_another(pods: Pods) -> None:
    hanging = [pods.add(f"hangs-{number}", HANGS, "hostile") for number in range(40)]
    meta = pods.add("reviews", ANSWERS, "team")
    async with pods.poller(timeout_s=5, slots=8, slots_per_namespace=4) as poller:
        for each in (*hanging, meta):
            poller.newest(each)
        await pods.asked(HANGS, 4)
        already = pods.requests[ANSWERS]
        begun = asyncio.get_running_loop().time()
        await pods.asked(ANSWERS, already + 6)
        took = asyncio.get_running_loop().time() - begun
        assert pods.requests[HANGS] == 4, "no namespace holds more than its share"
    assert took < 4, "one hang takes 5 s"


async def test_namespaces_take_turns_where_slots_are_short(pods: Pods) -> None:
    hanging = [pods.add(f"hangs-{number}", HANGS, "hostile") for number in range(40)]
    others = [pods.add("reviews", ANSWERS, f"team-{number}") for number in range(5)]
    async with pods.poller(interval_s=0.01, timeout_s=0.1, slots=2, slots_per_namespace=2) as poller:
        for each in hanging:
            poller.newest(each)
        await pods.asked(HANGS, 2)
        before = pods.requests[HANGS]
        for each in others:
            poller.newest(each)
        await pods.asked(ANSWERS, 5)
        # Without turns, the 38 that wait already would all go before.
        assert pods.requests[HANGS] - before < 12


async def test_a_pod_that_answers_slowly_is_asked_less_often(pods: Pods) -> None:
    meta = pods.add("hangs", HANGS)
    async with pods.poller(interval_s=0.01, timeout_s=0.03) as poller:
        poller.newest(meta)
        await pods.asked(HANGS, 1)
        begun = asyncio.get_running_loop().time()
        await pods.asked(HANGS, 2)
        assert asyncio.get_running_loop().time() - begun > 0.6, "a pod may hold a slot a thirtieth of the time"


async def test_what_is_gone_is_neither_asked_nor_remembered(pods: Pods) -> None:
    async with pods.poller(interval_s=0.02) as poller:
        metas = [pods.add(f"reviews-{number}", ANSWERS) for number in range(50)]
        for meta in metas:
            poller.newest(meta)
        assert poller.asked == 50
        for meta in metas[:25]:
            pods.remove(meta)
            assert poller.newest(meta) is None
        for meta in metas[25:]:
            pods.remove(meta)  # and no reconcile has told of it yet
        async with asyncio.timeout(5):
            while poller.asked:
                await asyncio.sleep(0.005)
        assert pods.requests.total() == 0, "an address may have another owner by now"


async def test_the_answer_of_an_earlier_pod_is_not_taken_for_that_of_the_next(pods: Pods) -> None:
    meta = pods.add("reviews", ANSWERS, uid="first")
    async with pods.poller() as poller:
        poller.newest(meta)
        await asyncio.wait_for(pods.woken.get(), 5)
        pods.add("reviews", OTHER, uid="second")
        assert poller.newest(meta) is None
        before = pods.requests[ANSWERS]
        await pods.asked(OTHER, 3)
        assert pods.requests[ANSWERS] == before and poller.newest(meta).step == 1


async def test_a_pod_that_no_reconcile_has_seen_yet_is_not_asked_in_place_of_another(pods: Pods) -> None:
    meta = pods.add("reviews", ANSWERS, uid="first")
    async with pods.poller() as poller:
        poller.newest(meta)
        pods.add("reviews", OTHER, uid="second")
        async with asyncio.timeout(5):
            while poller.asked:
                await asyncio.sleep(0.005)
        assert pods.requests.total() == 0


async def test_closing_ends_what_is_under_way(pods: Pods) -> None:
    meta = pods.add("hangs", HANGS)
    async with pods.poller(timeout_s=60) as poller:
        poller.newest(meta)
        await pods.asked(HANGS, 1)
    assert poller.asked == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("progress of")]


@pytest.fixture(autouse=True)
def no_errors_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
