"""The model in a server replica's own process: loaded in the background, replaced without a pause, and freed."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from luthier_api.documents import RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.answers import Row, Text
from luthier_serving.errors import LoadError
from luthier_serving.replica import local_model
from luthier_serving.replica.local_model import LocalModel
from support.serving.doubles import MODEL, answer

pytestmark = pytest.mark.unit


def revision(name: str) -> RevisionConfig:
    uri = f"s3://m/m/versions/{name}"
    return RevisionConfig(name=name, model_uri=uri, version=name, digest="sha256:" + "0" * 64)


class LoadedModel:
    """A model, of which a test can see whether it was freed."""

    times = None

    def __init__(self, name: str) -> None:
        self.info, self.work, self.reference = MODEL._replace(version=name), None, None

    def predict(self, texts: Sequence[Text]) -> list[Row]:
        return answer(texts).rows


class Replica:
    """A server replica around the model: what is loaded, held, drained and freed, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.models: dict[str, weakref.ref[LoadedModel]] = {}
        self.failures: list[Exception] = []
        self.may_load, self.may_drain = threading.Event(), asyncio.Event()
        self.may_load.set()
        self.may_drain.set()
        self.local = LocalModel(self.load, "replica-1", self.changed, self.drain)

    def load(self, config: RevisionConfig) -> Any:
        self.seen.append(f"load {config.name}")
        assert self.may_load.wait(10)
        if self.failures:
            raise self.failures.pop()
        model = LoadedModel(config.name)
        self.models[config.name] = weakref.ref(model)
        return model

    def changed(self) -> None:
        self.seen.append(f"holds {self.local.held.revision if self.local.held else 'nothing'}")

    async def drain(self, revision: str) -> None:
        self.seen.append(f"drain {revision}")
        await self.may_drain.wait()

    def alive(self, name: str) -> bool:
        gc.collect()
        return self.models[name]() is not None

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def until_held(self, name: str) -> None:
        await self.until(lambda: self.local.held and self.local.held.revision == name)


@pytest.fixture
async def replica(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    monkeypatch.setattr(local_model, "RETRY_S", 0.01)
    found = Replica()
    found.local.want(revision("one"), elsewhere=False)
    await found.local.wait()
    yield found
    found.may_load.set()
    found.may_drain.set()
    await found.until(lambda: not found.local._closing)


async def test_in_place_the_old_model_is_freed_once_the_new_one_is_held_and_it_has_answered(replica: Replica) -> None:
    replica.may_drain.clear()
    replica.local.want(revision("two"), elsewhere=False)
    await replica.until_held("two")
    await replica.until(lambda: "drain one" in replica.seen)
    assert replica.alive("one"), "requests wait for it"
    replica.may_drain.set()
    await replica.until(lambda: not replica.alive("one"))
    assert replica.seen == ["load one", "holds one", "load two", "holds two", "drain one"]
    assert replica.alive("two")


async def test_a_model_that_somebody_else_computes_is_loaded_after_the_old_one_is_freed(replica: Replica) -> None:
    replica.local.want(revision("two"), elsewhere=True)
    await replica.until_held("two")
    assert replica.seen == ["load one", "holds one", "holds nothing", "drain one", "load two", "holds two"]
    assert not replica.alive("one")


async def test_a_model_that_is_being_loaded_is_not_loaded_again_when_only_weights_change(replica: Replica) -> None:
    replica.may_load.clear()
    for _ in range(3):
        replica.local.want(revision("two"), elsewhere=False)
        await asyncio.sleep(0.005)
    replica.may_load.set()
    await replica.until_held("two")
    assert replica.seen.count("load two") == 1


async def test_a_model_that_is_held_is_not_loaded_again_when_it_is_wanted_back(replica: Replica) -> None:
    replica.may_load.clear()
    replica.local.want(revision("two"), elsewhere=False)
    await replica.until(lambda: "load two" in replica.seen)
    replica.local.want(revision("one"), elsewhere=False)
    replica.may_load.set()
    await asyncio.sleep(0.02)
    assert replica.seen == ["load one", "holds one", "load two"]
    assert [(each.revision, each.state) for each in replica.local.states()] == [("one", "Ready")]


async def test_a_failure_is_told_until_it_is_mended_and_the_old_model_answers(replica: Replica) -> None:
    replica.failures = [LoadError(Reason.INTEGRITY_ERROR, "One byte differs.")] * 4
    replica.local.want(revision("two"), elsewhere=False)
    await replica.until(lambda: replica.local.states()[-1].state == "Failed")
    held = replica.local.held
    assert held and (await held.send(["a"])).model.version == "one"
    await replica.until_held("two")
    assert [(each.revision, each.state, each.message) for each in replica.local.states()] == [("two", "Ready", "")]


async def test_what_nobody_foresaw_is_told_too_and_tried_again(replica: Replica) -> None:
    replica.failures = [OSError("No space left on device")] * 4
    replica.local.want(revision("two"), elsewhere=False)
    await replica.until(lambda: replica.local.states()[-1].state == "Failed")
    said = "Crashed: The model cannot be loaded: OSError: No space left on device"
    assert replica.local.states()[-1].message == said
    await replica.until_held("two")
    first = Replica()
    first.failures = [OSError("No space left on device")]
    first.local.want(revision("one"), elsewhere=False)
    with pytest.raises(LoadError, match="No space left"):
        await first.local.wait()


async def test_the_first_model_waits_for_storage_and_for_nothing_else(replica: Replica) -> None:
    first = Replica()
    first.failures = [LoadError(Reason.STORAGE_UNAVAILABLE, "Nobody answers.")] * 2
    first.local.want(revision("one"), elsewhere=False)
    await first.local.wait()
    assert first.local.held and first.seen.count("load one") == 3
    broken = Replica()
    broken.failures = [LoadError(Reason.INVALID_MODEL, "It has no labels.")] * 2
    broken.local.want(revision("one"), elsewhere=False)
    with pytest.raises(LoadError, match="It has no labels"):
        await broken.local.wait()
    assert broken.seen == ["load one"]
