"""Which server pods are asked how they are, and when a resource is woken: over HTTP, from addresses of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from luthier_api.documents import SERVER_REPORT_PATH, ApiKeysState, ModelState, RevisionCounts, ServerReport
from luthier_dev.processes import free_ports
from luthier_operator.gather.pod_client import MAX_BYTES, ReportReader
from luthier_operator.gather.server_poller import ServerPoller
from luthier_operator.model.views import Key, PodView
from support.operator.endpoints import Endpoint, document, says

pytestmark = pytest.mark.unit

KEY, OTHER = Key("ModelDeployment", "team", "reviews"), Key("ModelDeployment", "team", "other")
READY = ServerReport(replica="replica-1", ready=True, models=[ModelState(revision="rev-a", state="Ready")])


def pod(number: int = 1, **changes: Any) -> PodView:
    found = PodView(
        name=f"pod-{number}", uid=f"uid-{number}", owner_uid="ray-1", phase="Running",
        created_at=datetime(2026, 1, 1, tzinfo=UTC), ip=f"127.0.62.{number}",
    )  # fmt: skip
    return replace(found, **changes)


class Pods:
    """Pods that say what they are told to, each at an address of its own, and an operator that asks them."""

    def __init__(self) -> None:
        [self.port] = free_ports(1)
        self.says: dict[int, bytes] = {}
        self.endpoints: dict[int, Endpoint] = {}
        self.woken: list[Key] = []
        self.poller = ServerPoller(ReportReader(0.5, self.port), self.woken.append, interval_s=0.02)

    def say(self, report: ServerReport | str, number: int = 1) -> None:
        self.says[number] = document(report if isinstance(report, str) else report.to_json())
        if number not in self.endpoints:
            self.endpoints[number] = Endpoint(
                f"127.0.62.{number}",
                lambda connection, over: says(self.says[number])(connection, over),
                self.port,
                SERVER_REPORT_PATH,
            )

    def stop(self, number: int = 1) -> None:
        self.endpoints.pop(number).close()

    async def asked_again(self, number: int = 1) -> None:
        """Wait until a pod has been asked twice more, so that its answer of now is known."""
        upto = self.endpoints[number].asked + 2
        await self.until(lambda: self.endpoints[number].asked >= upto)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def pods() -> AsyncIterator[Pods]:
    found = Pods()
    yield found
    await found.poller.close()
    for number in list(found.endpoints):
        found.stop(number)


async def test_a_reconcile_does_not_wait_and_is_woken_by_the_first_answer(pods: Pods) -> None:
    pods.say(READY)
    assert pods.poller.reports(KEY, [pod()]) == []
    await pods.until(lambda: pods.woken)
    [found] = pods.poller.reports(KEY, [pod()])
    assert (found.pod, found.report) == ("pod-1", READY)
    assert pods.woken == [KEY]


async def test_what_decides_wakes_and_counts_alone_wake_nobody(pods: Pods) -> None:
    pods.say(READY)
    pods.poller.reports(KEY, [pod()])
    await pods.until(lambda: pods.woken)
    counted = READY.model_copy(update={"counts": {"rev-a": RevisionCounts(requests=7)}, "pending": 3})
    pods.say(counted)
    await pods.asked_again()
    assert pods.woken == [KEY]
    assert pods.poller.reports(KEY, [pod()])[0].report == counted
    loading = [*READY.models, ModelState(revision="rev-b", state="Loading")]
    nobody = ApiKeysState(count=0, message="Nobody is admitted.")
    changes = [{"ready": False}, {"window": "rev-b/0"}, {"models": loading}, {"api_keys": nobody}]
    for number, change in enumerate(changes, 2):
        pods.say(READY.model_copy(update=change))
        await pods.until(lambda number=number: len(pods.woken) == number)


async def test_a_replica_that_falls_silent_is_known_to_be_silent_and_a_pod_that_never_spoke_is_left_out(
    pods: Pods,
) -> None:
    pods.say(READY)
    both = [pod(1), pod(2)]
    pods.poller.reports(KEY, both)
    await pods.until(lambda: pods.woken)
    assert [each.pod for each in pods.poller.reports(KEY, both)] == ["pod-1"]
    pods.stop()
    await pods.until(lambda: len(pods.woken) == 2)
    assert [(each.pod, each.report) for each in pods.poller.reports(KEY, both)] == [("pod-1", None)]


@pytest.mark.parametrize(
    "nonsense",
    ["", "[]", "not JSON", '{"ready": true}', READY.to_json().replace("true", '"perhaps"'), f'"{"a" * MAX_BYTES}"'],
    ids=lambda text: text[:12] or "nothing",
)
async def test_what_is_no_report_counts_as_silence(pods: Pods, nonsense: str) -> None:
    pods.say(READY)
    pods.poller.reports(KEY, [pod()])
    await pods.until(lambda: pods.woken)
    pods.say(nonsense)
    await pods.until(lambda: len(pods.woken) == 2)
    assert pods.poller.reports(KEY, [pod()])[0].report is None


async def test_a_server_of_a_newer_release_may_say_more(pods: Pods) -> None:
    pods.say(READY.to_json().replace("{", '{"mood":"fine",', 1))
    pods.poller.reports(KEY, [pod()])
    await pods.until(lambda: pods.woken)
    assert pods.poller.reports(KEY, [pod()])[0].report == READY


@pytest.mark.parametrize("changes", [{"phase": "Pending"}, {"ip": None}, {"deleting": True}], ids=str)
async def test_only_pods_that_run_and_stay_are_asked(pods: Pods, changes: dict[str, Any]) -> None:
    pods.say(READY, 1)
    pods.say(READY, 2)
    both = [pod(1, **changes), pod(2)]
    pods.poller.reports(KEY, both)
    await pods.asked_again(2)
    assert pods.endpoints[1].asked == 0
    assert [each.pod for each in pods.poller.reports(KEY, both)] == ["pod-2"]


async def test_a_pod_that_is_gone_is_asked_no_more_and_its_answer_is_forgotten(pods: Pods) -> None:
    pods.say(READY, 1)
    pods.say(READY, 2)
    pods.poller.reports(KEY, [pod(1), pod(2)])
    await pods.until(lambda: len(pods.woken) == 2)
    assert [each.pod for each in pods.poller.reports(KEY, [pod(2)])] == ["pod-2"]
    await pods.asked_again(2)
    asked = pods.endpoints[1].asked
    await pods.asked_again(2)
    assert pods.endpoints[1].asked == asked
    assert [each.pod for each in pods.poller.reports(KEY, [pod(1), pod(2)])] == ["pod-2"], "it is asked anew"


async def test_a_pod_that_got_another_address_is_asked_there(pods: Pods) -> None:
    pods.say(READY, 1)
    pods.say(READY.model_copy(update={"replica": "replica-2"}), 2)
    pods.poller.reports(KEY, [pod(1)])
    await pods.until(lambda: pods.woken)
    moved = [pod(1, ip="127.0.62.2")]
    assert pods.poller.reports(KEY, moved) == []
    await pods.until(lambda: len(pods.woken) == 2)
    [found] = pods.poller.reports(KEY, moved)
    assert found.report and found.report.replica == "replica-2"


async def test_a_resource_that_is_forgotten_is_not_asked_for_and_others_are(pods: Pods) -> None:
    pods.say(READY, 1)
    pods.say(READY, 2)
    pods.poller.reports(KEY, [pod(1)])
    pods.poller.reports(OTHER, [pod(2)])
    await pods.until(lambda: len(pods.woken) == 2)
    pods.poller.forget(KEY)
    await pods.asked_again(2)
    asked = pods.endpoints[1].asked
    await pods.asked_again(2)
    assert pods.endpoints[1].asked == asked and set(pods.woken) == {KEY, OTHER}


async def test_no_more_than_its_slots_are_asked_at_the_same_time_and_all_in_turn() -> None:
    class Slow:
        """Answers when it is told to, and remembers how many were asked at once."""

        def __init__(self) -> None:
            self.now = self.most = 0
            self.seen: set[str] = set()

        async def read(self, ip: str) -> ServerReport | None:
            self.now += 1
            self.most, self.seen = max(self.most, self.now), {*self.seen, ip}
            await asyncio.sleep(0.01)
            self.now -= 1
            return READY

        async def close(self) -> None:
            pass

    reader, woken = Slow(), list[Key]()
    poller = ServerPoller(reader, woken.append, interval_s=60, slots=2)
    many = [pod(number) for number in range(1, 7)]
    poller.reports(KEY, many)
    async with asyncio.timeout(10):
        while len(woken) < 6:
            await asyncio.sleep(0.005)
    await poller.close()
    assert reader.most == 2 and len(reader.seen) == 6


def counted(replica: str, requests: int) -> ServerReport:
    counts = {"rev-a": RevisionCounts(requests=requests)}
    return READY.model_copy(update={"replica": replica, "counts": counts, "window": "rev-a/0"})


async def test_what_a_replica_had_counted_is_kept_when_another_takes_its_place(pods: Pods) -> None:
    pods.say(counted("one", 40))
    pods.poller.reports(KEY, [pod()])
    await pods.until(lambda: pods.woken)
    assert pods.poller.ended(KEY) == []
    pods.stop()
    await pods.until(lambda: pods.poller.reports(KEY, [pod()])[0].report is None)
    assert pods.poller.ended(KEY) == [counted("one", 40)], "while there is no other yet"
    for replica, requests, ended in (("two", 3, ["one"]), ("two", 5, ["one"]), ("three", 1, ["one", "two"])):
        pods.say(counted(replica, requests))
        newest = counted(replica, requests)
        await pods.until(lambda newest=newest: pods.poller.reports(KEY, [pod()])[0].report == newest)  # type: ignore[misc]
        assert [each.replica for each in pods.poller.ended(KEY)] == ended
    assert sum(each.counts["rev-a"].requests for each in pods.poller.ended(KEY)) == 45


async def test_what_a_replica_had_counted_is_kept_when_its_pod_goes_and_forgotten_with_the_resource(pods: Pods) -> None:
    pods.say(counted("one", 40), 1)
    pods.poller.reports(KEY, [pod(1)])
    await pods.until(lambda: pods.woken)
    pods.poller.reports(KEY, [])
    assert pods.poller.ended(KEY) == [counted("one", 40)]
    pods.poller.forget(KEY)
    assert pods.poller.ended(KEY) == []


async def test_a_replica_that_is_silent_for_a_moment_is_not_counted_twice(pods: Pods) -> None:
    pods.say(counted("one", 40))
    pods.poller.reports(KEY, [pod()])
    await pods.until(lambda: pods.woken)
    pods.say("nonsense")
    await pods.until(lambda: pods.poller.ended(KEY))
    pods.say(counted("one", 50))
    await pods.until(lambda: not pods.poller.ended(KEY))
    assert pods.poller.reports(KEY, [pod()])[0].report == counted("one", 50)
