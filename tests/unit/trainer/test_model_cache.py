"""The cache of base models that pods share: whole models or none, whoever writes, dies or damages."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from luthier_api.documents import MODEL_CACHE_VARIABLE, Access, Resolved, RunDocument
from luthier_artifacts import StorageConfig
from luthier_trainer.models import fetch, model_cache
from luthier_trainer.models.base_model import digest_of_model
from luthier_trainer.models.fetch import FetchedModel, fetch_model
from luthier_trainer.models.model_cache import ModelCache
from luthier_trainer.runtime.errors import InputNotFound
from support.trainer.hub import COMMIT, Hub, serving

pytestmark = pytest.mark.unit


def model_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "picture.png").write_bytes(b"not the model")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCache:
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv(MODEL_CACHE_VARIABLE, str(tmp_path / "cache"))
    found = ModelCache.of_environment()
    assert found
    return found


def kept(cache: ModelCache) -> list[str]:
    return sorted(path.name for path in (cache.folder / "models").iterdir())


def test_without_a_volume_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODEL_CACHE_VARIABLE, raising=False)
    assert ModelCache.of_environment() is None


def test_what_was_put_is_found_whole_and_only_the_model_is_kept(cache: ModelCache, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    digest = digest_of_model(folder)
    assert cache.get("a", tmp_path / "none") is None
    cache.put("a", digest, folder)
    assert cache.get("a", tmp_path / "found") == digest
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["config.json", "model.safetensors"]
    assert cache.get("b", tmp_path / "none") is None and not (tmp_path / "none").exists()


def test_one_model_from_two_places_lies_there_once(cache: ModelCache, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    digest = digest_of_model(folder)
    cache.put("a", digest, folder)
    cache.put("b", digest, folder)
    assert kept(cache) == [digest.removeprefix("sha256:")]
    assert cache.get("b", tmp_path / "found") == digest


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "empty", "not a digest", "a path"])
def test_what_is_damaged_is_never_used_and_is_made_good_by_the_next(
    cache: ModelCache, tmp_path: Path, damage: str
) -> None:
    folder = model_folder(tmp_path / "model")
    digest = digest_of_model(folder)
    cache.put("a", digest, folder)
    (model,) = (cache.folder / "models").iterdir()
    match damage:
        case "changed":
            (model / "model.safetensors").write_bytes(b"WEIGHTS")
        case "cut":
            (model / "model.safetensors").write_bytes(b"weigh")
        case "missing":
            (model / "config.json").unlink()
        case "empty":
            shutil.rmtree(model)
            model.mkdir()
        case "not a digest":
            (cache.folder / "sources" / "a").write_text("")
        case "a path":
            (cache.folder / "sources" / "a").write_text("sha256:../../../etc")
    assert cache.get("a", tmp_path / "found") is None and not (tmp_path / "found").exists()
    cache.put("a", digest, folder)
    assert cache.get("a", tmp_path / "found") == digest


def test_a_writer_that_died_leaves_nothing_that_is_found_and_is_tidied_away_later(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path / "model")

    def killed(source: object, target: Any) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", killed)
        # A kill leaves what is there.
        patched.setattr(shutil, "rmtree", lambda *arguments, **more: None)
        with pytest.raises(KeyboardInterrupt):
            cache.put("a", digest_of_model(folder), folder)
    (left,) = (cache.folder / "arriving").iterdir()
    assert cache.get("a", tmp_path / "none") is None
    cache.put("a", digest_of_model(folder), folder)
    assert left.exists(), "it may be of a writer that is at work"
    old = time.time() - model_cache.ABANDONED_S - 1
    os.utime(left, (old, old))
    cache.put("a", digest_of_model(folder), folder)
    assert not list((cache.folder / "arriving").iterdir())
    assert cache.get("a", tmp_path / "found")


def test_many_writers_and_readers_at_once_see_whole_models_or_none(cache: ModelCache, tmp_path: Path) -> None:
    folders = [model_folder(tmp_path / str(number), bytes([number]) * 500_000) for number in range(3)]
    digests = [digest_of_model(folder) for folder in folders]

    def work(number: int) -> str | None:
        which = number % 3
        cache.put(str(which), digests[which], folders[which])
        if number % 7 == 0:  # somebody clears the cache at the same time
            shutil.rmtree(cache.folder / "models" / digests[which].removeprefix("sha256:"), ignore_errors=True)
        found = cache.get(str(which), tmp_path / f"found-{number}")
        assert found in (None, digests[which])
        return found

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(60)))
    assert sum(each is not None for each in found) > 30
    assert not list((cache.folder / "arriving").iterdir())


def test_of_two_writers_of_a_model_the_second_uses_what_the_first_has_put(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model_folder(tmp_path / "model")
    digest = digest_of_model(folder)
    copy = model_cache._copy

    def copy_while_another_writes(source: Path, target: Path) -> None:
        copy(source, target)
        monkeypatch.setattr(model_cache, "_copy", copy)
        cache.put("first", digest, folder)

    monkeypatch.setattr(model_cache, "_copy", copy_while_another_writes)
    cache.put("second", digest, folder)
    assert [cache.get(each, tmp_path / each) for each in ("first", "second")] == [digest, digest]
    assert "not kept" not in caplog.text and kept(cache) == [digest.removeprefix("sha256:")]


@pytest.mark.parametrize("what", ["gone", "a file"])
def test_a_volume_that_cannot_be_used_holds_no_run_up(
    cache: ModelCache, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    folder = model_folder(tmp_path / "model")
    if what == "a file":
        for name in ("sources", "models", "arriving"):
            (cache.folder / name).write_text("in the way")
    else:
        cache.folder.rmdir()
        cache.folder.write_text("in the way")
    assert cache.get("a", tmp_path / "found") is None
    cache.put("a", digest_of_model(folder), folder)
    assert "not kept in the cache of models" in caplog.text


def test_a_folder_in_storage_is_taken_from_the_cache_as_long_as_no_file_of_it_changes(
    cache: ModelCache, tmp_path: Path
) -> None:
    """By file://, whose etags change with the files as those of S3 do; only S3's are cached."""
    place = model_folder(tmp_path / "place")

    def fetched_by(pod: str) -> str:
        folder = tmp_path / pod
        return fetch._of_storage(place.as_uri(), StorageConfig(), folder / "model", folder / "cache", cache).digest

    first, second = fetched_by("1"), fetched_by("2")
    assert first == second == digest_of_model(place)
    assert (tmp_path / "1" / "cache").exists() and not (tmp_path / "2" / "cache").exists(), "nothing is downloaded"
    (place / "picture.png").write_bytes(b"another picture")
    assert fetched_by("3") == first and not (tmp_path / "3" / "cache").exists()
    (place / "model.safetensors").write_bytes(b"WEIGHTS")
    assert fetched_by("4") == digest_of_model(place) != first


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(**{"models/luthier/tiny": model_folder(tmp_path / "hub")}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def fetched(folder: Path, **resolved: Any) -> FetchedModel:
    spec = {
        "model": {"uri": "hf://luthier/tiny"},
        "dataset": {"train": {"uri": "s3://data/a.csv"}},
        "output": {"name": "m", "uri": "s3://models/"},
    }
    run = RunDocument.model_validate({"spec": spec, "model_access": Access(), "resolved": resolved or None})
    return fetch_model(run, folder / "model", folder / "node-cache")


def test_a_commit_of_a_hub_is_downloaded_once_for_all_pods(cache: ModelCache, hub: Hub, tmp_path: Path) -> None:
    first, second = fetched(tmp_path / "1"), fetched(tmp_path / "2")
    assert sorted(hub.downloads) == ["config.json", "model.safetensors"]
    assert (first.digest, first.revision) == (second.digest, second.revision) == (second.digest, COMMIT)
    assert (second.folder / "model.safetensors").read_bytes() == b"weights"
    hub.folders["models/luthier/tiny@v2"] = hub.folders.pop("models/luthier/tiny")
    with pytest.raises(InputNotFound):
        fetched(tmp_path / "3")
    hub.tokens.clear()
    named = Resolved(
        run_key="a" * 64,
        data_key="b" * 64,
        model_digest=first.digest,
        model_revision=COMMIT,
        dataset_digest=first.digest,
    )
    assert fetched(tmp_path / "4", **named.model_dump()).digest == first.digest
    assert not hub.tokens, "a commit that is in the cache needs no hub"
