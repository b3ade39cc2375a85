"""Adapters over one base model with real weights: each answers as the version that it was published with."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from luthier_api.artifact_files import ADAPTER_FOLDER, WEIGHTS_FILE
from luthier_api.documents import AdapterConfig, RevisionConfig
from luthier_api.reasons import Reason
from luthier_api.training import Task
from luthier_artifacts import Metadata, PublishedVersion, open_registry
from luthier_serving.answers import Text
from luthier_serving.compute.adapters import load_adapter
from luthier_serving.compute.loading import CACHE_ENV, PATIENCE_ENV, load_model
from luthier_serving.compute.model import Model, open_model
from luthier_serving.errors import LoadError
from luthier_serving.replica.local_model import LocalModel
from support.serving.adapted import make_adapted

pytestmark = pytest.mark.integration

TEXTS: list[Text] = ["good film", "the bad film", "a", "the film was good", "the film was bad"]
COLOURS, TOPICS = ("red", "green", "blue"), ("films", "books")


@dataclass
class Shelf:
    """Versions in a registry on this machine, and what each answers by itself."""

    folder: Path
    published: dict[str, PublishedVersion] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    def publish(self, name: str, folder: Path) -> None:
        registry = open_registry(f"file://{self.folder}/models", name)
        key = f"{len(self.published):064x}"
        self.published[name] = registry.publish(folder, key, Metadata(task=Task.TEXT_CLASSIFICATION))
        self.folders[name] = folder

    def revision(self, name: str) -> RevisionConfig:
        version = self.published[name]
        return RevisionConfig(
            name=f"rev-{name}",
            model_uri=version.uri,
            version=version.version,
            digest=version.manifest.digest,
            engine="torch",
        )

    def adapter(self, name: str) -> AdapterConfig:
        version = self.published[name]
        return AdapterConfig(name=name, uri=version.uri, version=version.version, digest=version.manifest.digest)

    def expected(self, name: str) -> list[list[float]]:
        """What the version answers when it is served alone."""
        return numbers(open_model(self.folders[name], "torch"))


@pytest.fixture(scope="module")
def shelf(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """A base model, three versions of LoRA over it with labels of their own, and one over another base model."""
    folder = tmp_path_factory.mktemp("shelf")
    found, base = Shelf(folder), artifact
    found.publish("base", base)
    other = folder / "other-base"
    shutil.copytree(base, other)
    weights = load_file(other / WEIGHTS_FILE)
    save_file({name: 2 * weight for name, weight in weights.items()}, other / WEIGHTS_FILE, {"format": "pt"})
    found.publish("sentiment", make_adapted(base, folder / "sentiment", "negative", "positive", seed=1))
    found.publish("colours", make_adapted(base, folder / "colours", *COLOURS, seed=2, rank=2))
    found.publish("topics", make_adapted(base, folder / "topics", *TOPICS, seed=3))
    found.publish("stranger", make_adapted(other, folder / "stranger", *TOPICS, seed=4))
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path))
    monkeypatch.setenv(PATIENCE_ENV, "0")


def numbers(model: Model) -> list[list[float]]:
    return [[float(value) for value in row.values] for row in model.predict(TEXTS)]  # type: ignore[arg-type]


def at_once(function: Callable[[], Model]) -> Model:
    return function()


@pytest.mark.parametrize("base", ["base", "sentiment"], ids=["on the base itself", "on a version of LoRA over it"])
def test_each_adapter_answers_as_the_version_that_it_was_published_with(shelf: Shelf, base: str) -> None:
    """On a version that itself has updates, the adapter's replace them: they were learned beside the base model."""
    revision = shelf.revision(base)
    model = load_model(revision)
    before = numbers(model)
    adapted = {
        name: load_adapter(model, revision, shelf.adapter(name), f"{name}-1", at_once)
        for name in ("sentiment", "colours", "topics")
    }
    for name in ("topics", "colours", "sentiment", "colours"):
        for found, expected in zip(numbers(adapted[name]), shelf.expected(name), strict=True):
            assert found == pytest.approx(expected, abs=2e-5)
        assert adapted[name].info.version == shelf.published[name].version
    assert adapted["colours"].info.labels == COLOURS
    assert numbers(model) == before, "the model itself answers as before"
    model.engine.detach("colours-1")  # type: ignore[attr-defined]
    assert numbers(model) == before
    assert numbers(adapted["topics"])[0] == pytest.approx(shelf.expected("topics")[0], abs=2e-5)


def test_an_adapter_of_another_base_model_is_refused_with_both_named_and_leaves_nothing(shelf: Shelf) -> None:
    revision = shelf.revision("sentiment")
    model = load_model(revision)
    with pytest.raises(LoadError, match="learned beside s3://models/base") as error:
        load_adapter(model, revision, shelf.adapter("stranger"), "stranger-1", at_once)
    assert error.value.reason is Reason.INVALID_MODEL
    assert numbers(load_adapter(model, revision, shelf.adapter("topics"), "stranger-1", at_once))


def test_a_version_without_an_adapter_and_one_whose_bytes_were_changed_are_refused(shelf: Shelf) -> None:
    revision = shelf.revision("sentiment")
    model = load_model(revision)
    with pytest.raises(LoadError, match="name a version of a FineTuneJob with method LoRA or QLoRA"):
        load_adapter(model, revision, shelf.adapter("base"), "base-1", at_once)
    weights = Path(shelf.published["topics"].uri.removeprefix("file://")) / ADAPTER_FOLDER / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(LoadError) as error:
            load_adapter(model, revision, shelf.adapter("topics"), "topics-1", at_once)
        assert error.value.reason is Reason.INTEGRITY_ERROR
    finally:
        weights.write_bytes(content)


async def test_adapters_come_and_go_while_requests_are_computed_and_none_fails(shelf: Shelf) -> None:
    async def drained(revision: str) -> None:
        pass

    local = LocalModel(load_model, "replica-1", lambda: None, drained)
    local.want(shelf.revision("sentiment"), elsewhere=False, adapters=[shelf.adapter("colours")])
    await local.wait()
    held = local.held
    assert held and [(each.name, each.state) for each in held.adapters()] == [("colours", "Ready")]
    stop, answers = asyncio.Event(), [0, 0]

    async def ask(adapter: str | None, place: int) -> None:
        while not stop.is_set():
            answer = await held.send(TEXTS, adapter)
            assert all(row.error is None for row in answer.rows)
            assert len(answer.model.labels) == (3 if adapter else 2)
            answers[place] += 1

    asking = [asyncio.create_task(ask(None, 0)), asyncio.create_task(ask("colours", 1))]
    for adapters in (["colours", "topics"], ["colours"], ["topics", "colours"]):
        local.want(shelf.revision("sentiment"), elsewhere=False, adapters=[shelf.adapter(each) for each in adapters])
        await held.settled()
        counted = list(answers)
        async with asyncio.timeout(20):
            while any(now - then < 3 for now, then in zip(answers, counted, strict=True)):
                await asyncio.sleep(0.01)
    found = await held.send(TEXTS, "topics")
    assert found.model.labels == TOPICS
    stop.set()
    await asyncio.gather(*asking)
    await held.close()


def test_engine_onnxruntime_says_that_it_has_no_adapters(shelf: Shelf) -> None:
    revision = shelf.revision("base").model_copy(update={"engine": "onnxruntime"})
    model = load_model(revision)
    with pytest.raises(LoadError, match=r"set runtime\.engine: torch"):
        load_adapter(model, revision, shelf.adapter("topics"), "topics-1", at_once)
