"""What kopf's watches did not tell: at the start, after a list, and in between; each against what the cluster lists."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from luthier_operator.kube import ApiNotInstalled, KubeClient, ListedVersions, Transient, Unexpected
from luthier_operator.model.views import Key
from luthier_operator.store import audit as audit_module
from luthier_operator.store.audit import Audit, BeginAnew
from luthier_operator.store.informers import Informers
from luthier_operator.store.store import KINDS, Store

pytestmark = pytest.mark.unit

KEY = Key("FineTuneJob", "n", "reviews")
NAME = ("n", "reviews-train")
JOBS = "/apis/batch/v1/jobs"
Versions = dict[tuple[str, str], int]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_RELISTED_S", 0.01)
    monkeypatch.setattr(audit_module, "_LIST_AGAIN_S", 0.05)


def job(version: int, name: str = "reviews-train", namespace: str = "n") -> dict[str, Any]:
    labels = {"luthier.dev/finetunejob": "reviews"}
    metadata = {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}", "resourceVersion": str(version)}
    return {
        "kind": "Job",
        "metadata": {**metadata, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
    }


class Cluster:
    """Lists what it is told to, one list after another, the last one again and again; of other kinds there is none."""

    def __init__(self, *lists: Versions | Exception) -> None:
        self.lists: dict[str, list[Versions | Exception]] = {JOBS: list(lists)}
        self.asked: list[str] = []

    async def preferred_version(self, group: str) -> str:
        return f"{group}/v1beta2"

    async def list_versions(self, path: str, selector: str) -> ListedVersions:
        self.asked.append(path)
        lists = self.lists.get(path, [{}])
        listed = lists.pop(0) if len(lists) > 1 else lists[0]
        if isinstance(listed, Exception):
            raise listed
        return ListedVersions(100, listed)


class World:
    """A store of one Job, and the audit that compares it."""

    def __init__(
        self, cluster: Cluster, *known: dict[str, Any], namespaces: tuple[str, ...] = (), **times: float
    ) -> None:
        self.woken: list[Key] = []
        self.store, self.cluster = Store(), cluster
        self.informers = Informers(self.store, self.woken.append, self.woken.append)
        for each in known:
            self.informers.child("Job", each, deleted=False)
        self.woken.clear()
        given = {"interval_s": 3600.0, "absent_s": 3600.0, "patience_s": 0.0, **times}
        self.audit = Audit(cast(KubeClient, cluster), self.store, self.informers, namespaces, **given)

    async def ends(self) -> str:
        """Compare until the watches must begin anew; return why."""
        async with asyncio.timeout(5):
            with pytest.raises(BeginAnew) as ended:
                await self.audit.run()
        return str(ended.value)

    async def goes_on(self, comparisons: int = 3) -> None:
        """Compare several times, which must not end anything."""
        running = asyncio.create_task(self.audit.run())
        async with asyncio.timeout(5):
            while self.cluster.asked.count(JOBS) < comparisons and not running.done():
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    "lists",
    [
        pytest.param([{NAME: 9}], id="a change went unseen"),
        pytest.param([{NAME: 7, ("n", "new"): 8}], id="a beginning went unseen"),
    ],
)
async def test_a_watch_that_has_missed_something_has_all_begin_anew(lists: list[Versions]) -> None:
    world = World(Cluster(*lists), job(7), interval_s=0.02)
    assert "has missed 1 objects" in await world.ends()


@pytest.mark.parametrize(
    ("known", "lists"),
    [
        pytest.param(7, [{NAME: 7}], id="all is known"),
        pytest.param(9, [{NAME: 7}], id="the watch is ahead of the list"),
        pytest.param(101, [{}], id="made after the list"),
        pytest.param(7, [{NAME: 7, ("n", "new"): 8}, {NAME: 7}], id="it has gone again meanwhile"),
    ],
)
async def test_a_watch_that_tells_all_is_left_alone(known: int, lists: list[Versions]) -> None:
    world = World(Cluster(*lists), job(known), interval_s=0.02)
    await world.goes_on()
    assert world.store.jobs(KEY) and not world.woken


async def test_a_watch_that_catches_up_in_time_is_left_alone() -> None:
    class Late(Cluster):
        async def list_versions(self, path: str, selector: str) -> ListedVersions:
            asyncio.get_running_loop().call_soon(world.store.put, "Job", job(9))
            return await super().list_versions(path, selector)

    world = World(Late({NAME: 9}), job(7), interval_s=0.02)
    await world.goes_on()


async def test_what_went_unseen_is_forgotten_at_the_next_comparison_and_soon_after_a_new_list() -> None:
    for relisted in (False, True):
        world = World(Cluster({}), job(7), interval_s=3600.0 if relisted else 0.02)
        if relisted:
            world.audit.relisted("Job")
        await world.goes_on(1)
        assert not world.store.jobs(KEY) and world.woken == [KEY]


async def test_namespaces_are_listed_one_by_one_and_none_speaks_for_another() -> None:
    cluster = Cluster()
    cluster.lists = {"/apis/batch/v1/namespaces/n/jobs": [{NAME: 7}], "/apis/batch/v1/namespaces/other/jobs": [{}]}
    world = World(cluster, job(7), job(7, namespace="other"), namespaces=("n", "other"))
    world.audit.relisted("Job")
    running = asyncio.create_task(world.audit.run())
    async with asyncio.timeout(5):
        while not world.woken:
            await asyncio.sleep(0.01)
    running.cancel()
    assert world.woken == [Key("FineTuneJob", "other", "reviews")] and world.store.jobs(KEY)


async def test_the_start_is_over_when_the_store_holds_all_that_is_listed() -> None:
    world = World(Cluster({NAME: 7, ("n", "gone"): 8}, {NAME: 7}))
    settling = asyncio.create_task(world.audit.settle())
    async with asyncio.timeout(5):
        while world.audit.unsettled != "jobs":
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert not settling.done() and world.audit.unsettled == "jobs"
        world.store.put("Job", job(7))
        await settling
    assert world.audit.unsettled is None


async def test_while_the_watch_delivers_at_the_start_nothing_is_listed_again_nor_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both cost more the more there is, and thousands take a while to be delivered."""
    monkeypatch.setattr(audit_module, "_LOOK_S", 0.001)
    monkeypatch.setattr(audit_module, "_LIST_AGAIN_S", 0.2)
    names = [f"reviews-{number}" for number in range(50)]
    world = World(Cluster({("n", name): 7 for name in names}))
    compared: list[int] = []
    everything = world.store.all
    monkeypatch.setattr(world.store, "all", lambda kind: compared.append(1) or everything(kind))
    settling = asyncio.create_task(world.audit.settle())
    async with asyncio.timeout(5):
        for name in names:  # half a second, two and a half times as long as it would wait for nothing
            await asyncio.sleep(0.01)
            world.store.put("Job", job(7, name))
            assert not settling.done()
        await settling
    assert world.cluster.asked.count(JOBS) == 1
    assert len(compared) <= len(KINDS), "once for each kind"


@pytest.mark.parametrize("failure", [Transient("503"), Unexpected("403")])
async def test_a_list_that_fails_at_the_start_is_never_taken_for_an_empty_one(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "_AGAIN_S", 0.01)
    world = World(Cluster(failure, {NAME: 7}))
    settling = asyncio.create_task(world.audit.settle())
    async with asyncio.timeout(5):
        while world.cluster.asked.count(JOBS) < 2:
            await asyncio.sleep(0.01)
        assert not settling.done()
        world.store.put("Job", job(7))
        await settling


@pytest.mark.parametrize("failure", [Transient("503"), Unexpected("403")])
async def test_a_comparison_that_fails_is_made_again(failure: Exception) -> None:
    world = World(Cluster(failure, {NAME: 9}), job(7), interval_s=0.02)
    assert "has missed" in await world.ends()


RAYSERVICES = "/apis/ray.io/v1/rayservices"
FINETUNEJOBS = "/apis/luthier.dev/v1alpha1/finetunejobs"


async def test_a_kind_that_may_be_missing_holds_nothing_up_and_is_found_when_it_is_installed() -> None:
    cluster = Cluster({})
    cluster.lists[RAYSERVICES] = [ApiNotInstalled("404"), ApiNotInstalled("404"), {}]
    world = World(cluster, absent_s=0.02)
    async with asyncio.timeout(5):
        await world.audit.settle()
    assert await world.ends() == "rayservices have been installed"


async def test_without_a_kind_that_must_be_there_the_start_is_not_over_until_it_is_installed() -> None:
    cluster = Cluster({})
    cluster.lists[FINETUNEJOBS] = [ApiNotInstalled("404"), ApiNotInstalled("404"), {}]
    world = World(cluster, absent_s=0.02)
    async with asyncio.timeout(5):
        with pytest.raises(BeginAnew, match="finetunejobs have been installed"):
            await world.audit.settle()
    assert world.audit.unsettled == "finetunejobs"
