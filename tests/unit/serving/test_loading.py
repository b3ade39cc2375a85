"""Downloading a version: where it is kept, which files, how long storage is waited for, and the reasons of failures."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from luthier_api.documents import AdapterConfig, RevisionConfig
from luthier_api.reasons import Reason
from luthier_artifacts import (
    BucketNotFound,
    CredentialsExpired,
    IntegrityError,
    InvalidUri,
    Metadata,
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    open_registry,
)
from luthier_serving.compute import loading
from luthier_serving.compute.adapters import load_adapter
from luthier_serving.compute.loading import cache_folder, load_model
from luthier_serving.errors import LoadError
from support.signing_keys import KeyPair

pytestmark = pytest.mark.unit

CONFIG = RevisionConfig(
    name="rev-1",
    model_uri="s3://models/m/versions/v7",
    version="v7",
    digest="sha256:" + "0" * 64,
    gpus_per_replica=1,
    max_batch_tokens=99,
)


class Storage:
    """Downloads with the failures that a test wants, and a clock that only sleep moves."""

    def __init__(self, *failures: StorageError) -> None:
        self.failures = list(failures)
        self.downloads: list[dict[str, Any]] = []
        self.opened: list[dict[str, Any]] = []
        self.now = 0.0
        self.model = SimpleNamespace(times=None)

    def download_version(self, uri: str, folder: Path, storage: Any, **options: Any) -> None:
        self.downloads.append({"uri": uri, "folder": folder, **options})
        if self.failures:
            raise self.failures.pop(0)
        folder.mkdir()

    def open_model(self, folder: Path, engine: str, **options: Any) -> SimpleNamespace:
        assert folder.is_dir()
        self.opened.append({"engine": engine, **options})
        self.now += 2.0
        return self.model

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LUTHIER_LOAD_PATIENCE_S", raising=False)
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")

    def using(*failures: StorageError) -> Storage:
        storage = Storage(*failures)
        monkeypatch.setattr(loading, "download_version", storage.download_version)
        monkeypatch.setattr(loading, "open_model", storage.open_model)
        monkeypatch.setattr(loading, "time", storage)
        return storage

    return using


def test_a_version_is_downloaded_verified_and_opened_as_its_config_says(use: Any, tmp_path: Path) -> None:
    storage = use()
    assert load_model(CONFIG) is storage.model
    [download] = storage.downloads
    assert (download["uri"], download["digest"]) == (CONFIG.model_uri, CONFIG.digest)
    assert download["cache"] == tmp_path / "cache" / "content"
    assert download["folder"].is_relative_to(tmp_path / "cache"), "hard links need the same file system"
    assert download["choose"](["model.onnx", "model.safetensors"]) == ["model.safetensors"], "of an engine with a GPU"
    [opened] = storage.opened
    assert opened.pop("cpus") >= 1
    assert opened == {"engine": "auto", "version": "v7", "digest": CONFIG.digest, "gpus": 1, "max_tokens": 99}
    assert list((tmp_path / "cache").iterdir()) == [], "the working folder is removed"


@pytest.mark.parametrize("failure", [StorageUnavailable("connection refused"), CredentialsExpired("renew them")])
def test_an_outage_of_storage_and_keys_that_are_renewed_late_are_waited_out(use: Any, failure: StorageError) -> None:
    storage = use(*[failure] * 10)
    assert load_model(CONFIG) is storage.model
    assert len(storage.downloads) == 11
    assert storage.model.times == (10 * loading.RETRY_DELAY_S, 2.0)


@pytest.mark.parametrize(("patience_s", "downloads"), [("0", 1), ("2.9", 1), ("3", 2), ("9", 4)])
def test_storage_is_waited_for_only_as_long_as_the_setting_says(
    use: Any, monkeypatch: pytest.MonkeyPatch, patience_s: str, downloads: int
) -> None:
    monkeypatch.setenv("LUTHIER_LOAD_PATIENCE_S", patience_s)
    storage = use(*[StorageUnavailable("connection refused")] * 50)
    with pytest.raises(LoadError, match="StorageUnavailable: connection refused"):
        load_model(CONFIG)
    assert len(storage.downloads) == downloads


def test_keys_that_are_not_renewed_in_time_have_a_reason_of_their_own(
    use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_LOAD_PATIENCE_S", "0")
    use(CredentialsExpired("renew them"))
    with pytest.raises(LoadError) as error:
        load_model(CONFIG)
    assert error.value.reason is Reason.CREDENTIALS_EXPIRED


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (IntegrityError("a digest differs"), Reason.INTEGRITY_ERROR),
        (StorageDenied("access denied"), Reason.STORAGE_DENIED),
        (BucketNotFound("no such bucket"), Reason.BUCKET_NOT_FOUND),
        (ObjectNotFound("no such object"), Reason.MODEL_NOT_FOUND),
        (InvalidUri("no such scheme"), Reason.INVALID_SPEC),
    ],
)
def test_what_no_retry_can_mend_fails_at_once_with_its_reason(use: Any, failure: StorageError, reason: Reason) -> None:
    storage = use(failure)
    with pytest.raises(LoadError) as error:
        load_model(CONFIG)
    assert (error.value.reason, len(storage.downloads)) == (reason, 1)
    assert error.value.sentence == str(failure)


def test_without_a_setting_the_cache_is_the_images_folder_or_a_temporary_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LUTHIER_CACHE", raising=False)
    monkeypatch.setattr(loading.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(loading, "DEFAULT_CACHE", str(tmp_path / "image"))
    assert cache_folder() == tmp_path / "image"
    (tmp_path / "file").touch()
    monkeypatch.setattr(loading, "DEFAULT_CACHE", str(tmp_path / "file" / "below"))
    assert cache_folder() == tmp_path / "tmp" / "luthier-cache"
    monkeypatch.setattr(loading, "DEFAULT_CACHE", str(tmp_path / "image"))
    monkeypatch.setattr(loading.os, "access", lambda folder, mode: Path(folder) != tmp_path / "image")
    assert cache_folder() == tmp_path / "tmp" / "luthier-cache"


def test_a_cache_folder_that_was_asked_for_and_is_not_writable_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(LoadError, match="is not writable; set LUTHIER_CACHE") as error:
        cache_folder()
    assert error.value.reason is Reason.CONFIG_ERROR


class Signed:
    """A version in a folder, and the revision that serves it if one key has signed it."""

    def __init__(self, folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "model.onnx").write_bytes(b"weights")
        self.registry = open_registry(f"file://{folder}/store", "m")
        self.version = self.registry.publish(folder / "model", "ab" * 32, Metadata())
        self.keys, self.pair = folder / "public.pem", KeyPair()
        self.keys.write_text(self.pair.public)

    def sign(self, pair: KeyPair) -> None:
        self.registry.sign(self.version.version, pair.private)

    @property
    def config(self) -> RevisionConfig:
        about = {"model_uri": self.version.uri, "digest": self.version.digest, "trusted_keys": str(self.keys)}
        return CONFIG.model_copy(update={**about, "gpus_per_replica": 0})


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Signed:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "open_model", lambda folder, engine, **_: SimpleNamespace(times=None))
    return Signed(tmp_path)


def test_a_version_is_loaded_only_with_the_signature_that_is_asked_for(signed: Signed) -> None:
    for sentence in ("is not signed: it has no model.sig", "was made with none of the keys that are trusted"):
        with pytest.raises(LoadError) as error:
            load_model(signed.config)
        assert error.value.reason is Reason.INTEGRITY_ERROR and sentence in error.value.sentence
        signed.sign(KeyPair())
    signed.sign(signed.pair)
    assert load_model(signed.config)


def test_an_adapter_is_asked_for_a_signature_like_the_model_below_it(signed: Signed) -> None:
    base: Any = SimpleNamespace(engine=SimpleNamespace(attach=print, detach=print))
    adapter = AdapterConfig(name="a", uri=signed.version.uri, version="v", digest=signed.version.digest)
    with pytest.raises(LoadError, match=r"is not signed: it has no model\.sig"):
        load_adapter(base, signed.config, adapter, "a-1", lambda attach: attach())
    signed.sign(signed.pair)
    with pytest.raises(LoadError, match=r"has no adapter/luthier-adapter\.json"):  # the next thing that is looked at
        load_adapter(base, signed.config, adapter, "a-1", lambda attach: attach())


def test_without_keys_to_trust_nothing_is_loaded(signed: Signed) -> None:
    signed.sign(signed.pair)
    signed.keys.write_text("soon")
    with pytest.raises(LoadError, match=r"No version can be verified with public\.pem of model\.verify") as error:
        load_model(signed.config)
    assert error.value.reason is Reason.CONFIG_ERROR
    signed.keys.unlink()
    with pytest.raises(LoadError, match="The ConfigMap has no such key"):
        load_model(signed.config)
