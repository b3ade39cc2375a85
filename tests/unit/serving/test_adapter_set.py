"""The adapters of a loaded model: brought, replaced, tried again and freed while it answers. Real threads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import AdapterConfig, RevisionConfig
from luthier_api.reasons import Reason
from luthier_serving.compute import adapter_set
from luthier_serving.compute.adapter_set import AdapterSet
from luthier_serving.errors import LoadError, Unavailable

pytestmark = pytest.mark.unit

REVISION = RevisionConfig(name="rev-1", model_uri="s3://m/m/versions/v", version="v", digest="sha256:" + "0" * 64)


def adapter(name: str, letter: str = "a") -> AdapterConfig:
    uri = f"s3://m/{name}/versions/v-{letter}"
    return AdapterConfig(name=name, uri=uri, version=f"v-{letter}", digest=f"sha256:{letter * 64}")


class Engine:
    """Remembers what is attached to it, and on which thread."""

    def __init__(self) -> None:
        self.attached: list[str] = []
        self.threads: set[str] = set()

    def attach(self, name: str, folder: Path, without: Path | None) -> Any:
        assert name not in self.attached
        self.attached.append(name)

    def detach(self, name: str) -> None:
        self.attached.remove(name)


class Base:
    """A model of which only the engine matters."""

    def __init__(self) -> None:
        self.engine = Engine()


class Adapters:
    """The set under test; loading a version fails as often as `failures` says."""

    def __init__(self) -> None:
        self.base: Any = Base()
        self.failures: dict[str, list[Exception]] = {}
        self.loads: list[str] = []
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self.set = AdapterSet(self.base, REVISION, self.pool, self.load)

    def load(self, base: Any, revision: RevisionConfig, config: AdapterConfig, name: str, compute: Any) -> Any:
        assert base is self.base and revision is REVISION
        self.loads.append(config.version)
        if self.failures.get(config.version):
            raise self.failures[config.version].pop()

        def attach() -> str:
            base.engine.attach(name, Path(), None)
            return f"{config.name} {config.version}"

        return compute(attach)

    def states(self) -> list[tuple[str, str, str]]:
        return [(each.name, each.state, each.message) for each in self.set.states()]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def adapters(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Adapters]:
    monkeypatch.setattr(adapter_set, "RETRY_S", 0.01)
    monkeypatch.setattr(adapter_set, "FREE_AFTER_S", 0.02)
    found = Adapters()
    yield found
    found.set.close()
    found.pool.shutdown()


async def test_an_adapter_answers_once_it_is_loaded_and_one_that_is_not_says_so(adapters: Adapters) -> None:
    adapters.set.want([adapter("films")])
    with pytest.raises(Unavailable, match="The adapter films is being loaded"):
        adapters.set.model("films")
    assert adapters.states() == [("films", "Loading", "")]
    assert await adapters.set.settled() == []
    assert adapters.set.model("films") == "films v-a"  # type: ignore[comparison-overlap]
    assert adapters.states() == [("films", "Ready", "")]


async def test_one_that_fails_is_tried_again_and_holds_no_other_up(adapters: Adapters) -> None:
    adapters.failures["v-b"] = [LoadError(Reason.INVALID_MODEL, "It was learned beside another model.")] * 3
    adapters.set.want([adapter("films", "b"), adapter("books")])
    (failure,) = await adapters.set.settled()
    assert failure.reason is Reason.INVALID_MODEL
    assert adapters.states() == [
        ("films", "Failed", "InvalidModel: It was learned beside another model."),
        ("books", "Ready", ""),
    ]
    with pytest.raises(Unavailable, match="films cannot be loaded: It was learned beside another model"):
        adapters.set.model("films")
    await adapters.until(lambda: adapters.states()[0][1] == "Ready")
    assert adapters.loads.count("v-b") == 4


async def test_what_nobody_foresaw_is_told_and_tried_again(adapters: Adapters) -> None:
    adapters.failures["v-a"] = [OSError("No space left on device")]
    adapters.set.want([adapter("films")])
    (failure,) = await adapters.set.settled()
    assert str(failure) == "Crashed: It cannot be loaded: OSError: No space left on device"
    await adapters.until(lambda: adapters.states()[0][1] == "Ready")


async def test_one_that_is_removed_answers_what_is_queued_and_is_freed(adapters: Adapters) -> None:
    adapters.set.want([adapter("films"), adapter("books")])
    await adapters.set.settled()
    adapters.set.want([adapter("books")])
    assert adapters.states() == [("books", "Ready", "")]
    assert adapters.set.model("films"), "requests for it may be queued"
    await adapters.until(lambda: len(adapters.base.engine.attached) == 1)
    with pytest.raises(Unavailable):
        adapters.set.model("films")


async def test_one_that_is_wanted_back_in_time_is_not_loaded_again(adapters: Adapters) -> None:
    adapters.set.want([adapter("films")])
    await adapters.set.settled()
    adapters.set.want([])
    adapters.set.want([adapter("films")])
    await asyncio.sleep(0.05)
    assert adapters.loads == ["v-a"] and adapters.set.model("films")
    assert len(adapters.base.engine.attached) == 1


async def test_another_version_by_the_same_name_takes_over_when_it_is_loaded(adapters: Adapters) -> None:
    adapters.set.want([adapter("films")])
    await adapters.set.settled()
    adapters.set.want([adapter("films", "b")])
    assert adapters.states() == [("films", "Loading", "")]
    assert adapters.set.model("films") == "films v-a", "it answers meanwhile"  # type: ignore[comparison-overlap]
    await adapters.set.settled()
    assert adapters.set.model("films") == "films v-b"  # type: ignore[comparison-overlap]
    await adapters.until(lambda: len(adapters.base.engine.attached) == 1)
    assert adapters.set.model("films") == "films v-b"  # type: ignore[comparison-overlap]


async def test_one_that_is_removed_while_it_is_loaded_is_freed(adapters: Adapters) -> None:
    adapters.set.want([adapter("films")])
    await adapters.until(lambda: adapters.loads)
    adapters.set.want([])
    await adapters.until(lambda: adapters.loads and not adapters.base.engine.attached)
    assert adapters.states() == []
