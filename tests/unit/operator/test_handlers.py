"""What kopf is given: coroutines only, and an event that changes nothing that a decision looks at wakes nobody."""

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

import kopf
import pytest

from luthier_operator import handlers, names
from luthier_operator.cache import Cache, Kind
from luthier_operator.index import Beginning
from luthier_operator.observed import Key

pytestmark = pytest.mark.unit

KEY = Key("FineTuneJob", "ns", "reviews")


class Watch:
    """kopf, as far as one kind of object goes."""

    def __init__(self, kind: Kind) -> None:
        registry = kopf.OperatorRegistry()
        self.woken: list[Key] = []
        self.cache, self._kind = Cache(), kind
        self.told = handlers.register(registry, self.cache, self.woken.append)
        self.handlers = {str(each.id): each.fn for each in registry._watching.get_all_handlers()}
        assert not list(registry._indexing.get_all_handlers()), "kopf's indices take quadratic time"

    async def tell(self, event: str | None, raw: dict[str, Any]) -> None:
        await self.handlers[self._kind](event={"type": event, "object": raw})  # type: ignore[misc, call-arg]


def job(version: int, status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "reviews-1-train",
            "namespace": "ns",
            "uid": "u1",
            "resourceVersion": str(version),
            "labels": {names.FINETUNEJOB: "reviews"},
            "managedFields": [{"manager": "kube-controller-manager"}],
        },
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
        "status": dict(status),
    }


def test_kopf_calls_nothing_in_another_thread() -> None:
    watch = Watch("Job")

    assert len(watch.handlers) == 6
    assert [name for name, function in watch.handlers.items() if not inspect.iscoroutinefunction(function)] == []


async def test_an_event_that_tells_nothing_new_wakes_nobody() -> None:
    watch = Watch("Job")

    await watch.tell("ADDED", job(1, {"active": 1}))
    await watch.tell("MODIFIED", job(2, {"active": 1, "uncountedTerminatedPods": {"succeeded": ["p"]}}))
    assert watch.woken == [KEY]

    await watch.tell("MODIFIED", job(3, {"active": 0, "failed": 1}))
    assert watch.woken == [KEY, KEY]


async def test_the_end_of_an_object_wakes_although_nothing_of_it_has_changed() -> None:
    watch = Watch("Job")

    await watch.tell("ADDED", job(1, {}))
    await watch.tell("DELETED", job(1, {}))
    assert watch.woken == [KEY, KEY]


async def test_what_was_parsed_is_let_go_since_kopf_keeps_the_object() -> None:
    watch, raw = Watch("Job"), job(1, {"active": 1})

    await watch.tell("ADDED", raw)

    assert (raw["spec"], raw["status"], "managedFields" in raw["metadata"]) == ({}, {}, False)
    (item,) = watch.cache.jobs(KEY)
    assert item.active == 1


async def test_an_object_that_changes_hands_is_no_longer_found_where_it_was() -> None:
    watch, taken = Watch("Job"), job(2, {})
    taken["metadata"]["labels"] = {names.FINETUNEJOB: "others"}

    await watch.tell("ADDED", job(1, {}))
    await watch.tell("MODIFIED", taken)

    assert (len(watch.cache.jobs(KEY)), len(watch.cache.jobs(Key("FineTuneJob", "ns", "others")))) == (0, 1)


async def test_a_deployment_is_woken_by_what_it_follows_until_it_is_gone() -> None:
    def deployment(version: int) -> dict[str, Any]:
        metadata = {"name": "front", "namespace": "ns", "uid": "d1", "resourceVersion": str(version)}
        return {"metadata": metadata, "spec": {"model": {"fineTuneJobRef": {"name": "reviews"}}}}

    watch = Watch("ModelDeployment")

    await watch.tell(None, deployment(1))
    assert list(watch.told.followers[KEY]) == ["front"]
    await watch.tell("DELETED", deployment(2))
    assert KEY not in watch.told.followers
    assert watch.woken == [Key("ModelDeployment", "ns", "front"), KEY] * 2


async def test_the_beginning_ends_when_all_lists_are_there_and_nothing_more_comes() -> None:
    beginning, listed = Beginning(), []
    waiting = asyncio.create_task(beginning.wait(lambda: bool(listed)))

    async def tell() -> None:
        for _ in range(20):
            beginning.told()
            await asyncio.sleep(0.01)

    await tell()
    assert not waiting.done()
    listed.append(True)
    await tell()
    assert not waiting.done()
    await asyncio.wait_for(waiting, 5)
