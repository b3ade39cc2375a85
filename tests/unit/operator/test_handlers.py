"""What kopf is given: coroutines only, and an event that changes nothing that a decision looks at wakes nobody."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import kopf
import pytest

from luthier_operator import handlers, names
from luthier_operator.cache import Cache, Kind, Stored
from luthier_operator.observed import Key

pytestmark = pytest.mark.unit

KEY = Key("FineTuneJob", "ns", "reviews")


class Watch:
    """kopf, as far as one kind of object goes: it calls the index first, and then the handler that wakes."""

    def __init__(self, kind: Kind) -> None:
        registry = kopf.OperatorRegistry()
        self.woken: list[Key] = []
        self._cache, self._kind = Cache(), kind
        handlers.register(registry, self._cache, self.woken.append)
        self.handlers = {str(each.id): each.fn for each in handlers_of(registry)}
        self._index: dict[Key, dict[str, Stored]] = {}
        self._cache.attach({kind: self})  # type: ignore[dict-item]

    def get(self, key: Key, default: object = ()) -> list[Stored]:
        return list(self._index.get(key, {}).values())

    async def tell(self, event: str, raw: dict[str, Any]) -> None:
        found = await self.handlers[self._kind](body=kopf.Body(raw))  # type: ignore[misc, call-arg]
        for key, item in found.items():  # type: ignore[union-attr]
            self._index.setdefault(key, {})[item.name] = item
        await self.handlers[f"wake-{self._kind}"](event={"type": event, "object": raw})  # type: ignore[misc, call-arg]


def handlers_of(registry: kopf.OperatorRegistry) -> Iterator[Any]:
    yield from registry._indexing.get_all_handlers()
    yield from registry._watching.get_all_handlers()


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

    assert len(watch.handlers) > 10
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
    (item,) = watch.get(KEY)
    assert item.value.active == 1
