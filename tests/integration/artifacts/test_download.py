"""Nothing that is not what its manifest says becomes visible, and nothing is downloaded twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from luthier_artifacts import (
    IntegrityError,
    InvalidUri,
    Metadata,
    ObjectNotFound,
    PublishedVersion,
    Registry,
    download_version,
    fetch_files,
    fetch_tree,
    open_registry,
    open_store,
    verify_folder,
)
from luthier_artifacts import parts as parts_module
from luthier_artifacts.store import ObjectStore

RUN = "cd" * 32
PART = 1024


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has ten parts instead of one."""
    monkeypatch.setattr(parts_module, "PART_BYTES", PART)


@pytest.fixture
def store(storage) -> ObjectStore:
    return open_store(storage.uri, storage.config)


@pytest.fixture
def published(store: ObjectStore, model: Path) -> PublishedVersion:
    return Registry(store, "m").publish(model, RUN, Metadata())


def _weights_key(published: PublishedVersion) -> str:
    return f"m/versions/{published.version}/model.safetensors"


def _changed(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def test_a_download_is_the_folder_that_was_published(storage, published, model: Path, tmp_path: Path) -> None:
    for cache in (None, tmp_path / "cache"):
        into = tmp_path / f"out-{cache is None}"
        manifest = download_version(published.uri, into, storage.config, cache=cache, digest=published.digest)
        assert manifest == published.manifest
        assert (into / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
        assert (into / "tokenizer" / "vocab.txt").read_text() == "a\nb\n"
        verify_folder(into, manifest)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"model", "out-True", "out-False", "cache"} | ({"storage"} if storage.uri.startswith("file") else set())
    )


def test_some_files_of_a_version_can_be_chosen_and_are_verified_like_all(
    storage, store: ObjectStore, published: PublishedVersion, tmp_path: Path
) -> None:
    def no_weights(paths: list[str]) -> list[str]:
        assert set(paths) == {entry.path for entry in published.manifest.files}
        return [path for path in paths if path != "model.safetensors"]

    store.delete([_weights_key(published)])
    into, manifest = tmp_path / "out", published.manifest
    assert download_version(published.uri, into, storage.config, digest=published.digest, choose=no_weights) == manifest
    verify_folder(into, [entry for entry in manifest.files if entry.path != "model.safetensors"])
    with pytest.raises(ObjectNotFound):
        download_version(published.uri, tmp_path / "all", storage.config, choose=lambda paths: paths)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_changed, "sha256"),
        (lambda data: data[:-1], "10239 bytes instead of 10240"),
        (lambda data: b"", "bytes instead of 10240|shorter"),
        (lambda data: data + b"\0", "10241 bytes instead of 10240"),
    ],
    ids=["one byte changed", "truncated", "emptied", "one byte more"],
)
def test_a_damaged_file_is_never_visible(
    storage, store: ObjectStore, published: PublishedVersion, tmp_path: Path, damage, sentence: str
) -> None:
    key = _weights_key(published)
    data, _ = store.read(key)
    store.write(key, damage(data))
    with pytest.raises(IntegrityError, match=sentence):
        download_version(published.uri, tmp_path / "out", storage.config, cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()
    store.write(key, data)
    download_version(published.uri, tmp_path / "out", storage.config, cache=tmp_path / "cache")
    verify_folder(tmp_path / "out", published.manifest)


def test_a_version_of_a_known_digest_that_the_cache_holds_needs_no_storage(
    storage, store: ObjectStore, published: PublishedVersion, tmp_path: Path
) -> None:
    def fetch(name: str, digest: str | None) -> None:
        download_version(published.uri, tmp_path / name, storage.config, cache=tmp_path / "cache", digest=digest)
        verify_folder(tmp_path / name, published.manifest)

    fetch("one", published.digest)
    store.delete([each.key for each in store.list()])
    fetch("two", published.digest)
    with pytest.raises(ObjectNotFound):  # without a digest, only storage says what the version is
        fetch("three", None)
    (kept,) = (tmp_path / "cache" / "manifests").iterdir()
    kept.write_text(kept.read_text()[:-40])
    with pytest.raises(ObjectNotFound):
        fetch("four", published.digest)


def test_a_missing_file_a_missing_version_and_a_wrong_digest_are_different_errors(
    storage, store: ObjectStore, published: PublishedVersion, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match="it was replaced"):
        download_version(published.uri, tmp_path / "out", storage.config, digest=f"sha256:{'0' * 64}")
    with pytest.raises(ObjectNotFound, match=r"no manifest\.json"):
        download_version(f"{storage.uri}/m/versions/none", tmp_path / "out", storage.config)
    store.delete([_weights_key(published)])
    with pytest.raises(ObjectNotFound, match=r"model\.safetensors does not exist"):
        download_version(published.uri, tmp_path / "out", storage.config)
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_points_outside_writes_nothing(
    storage, store: ObjectStore, published: PublishedVersion, tmp_path: Path
) -> None:
    key = f"m/versions/{published.version}/manifest.json"
    data, _ = store.read(key)
    store.write(key, data.replace(b'"config.json"', b'"../../../escaped"'))
    with pytest.raises(IntegrityError, match="refused"):
        download_version(published.uri, tmp_path / "a" / "b" / "out", storage.config)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "extra").touch(), "extra .* is not in the manifest"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json has 1 bytes instead of 2"),
        (lambda folder: (folder / "config.json").write_text("{} "), "config.json has 3 bytes instead of 2"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json does not have the sha256"),
    ],
)
def test_a_folder_that_differs_from_its_manifest_is_named(
    published: PublishedVersion, model: Path, tmp_path: Path, damage, sentence: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "copy")
    verify_folder(folder, published.manifest)
    damage(folder)
    with pytest.raises(IntegrityError, match=sentence):
        verify_folder(folder, published.manifest)


def test_a_target_that_holds_something_else_is_left_alone(storage, published, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep me")
    with pytest.raises(IntegrityError):
        download_version(published.uri, tmp_path / "out", storage.config)
    assert (tmp_path / "out" / "mine").read_text() == "keep me"


def test_a_download_that_is_killed_twice_goes_on_with_the_parts_that_are_missing(
    store: ObjectStore, published: PublishedVersion, tmp_path: Path, faults
) -> None:
    asked: Counter[str] = Counter()
    dies_at = [6, 4, 0]

    def count_and_die(when: str, operation: str, key: str) -> None:
        if when == "before" and operation == "range":
            asked[key] += 1
            if asked[key] == dies_at[0] and key.endswith("model.safetensors"):
                raise faults.Killed

    one_at_a_time = faults.Interposed(store, count_and_die)
    one_at_a_time.at_once = 1
    registry = Registry(one_at_a_time, "m")
    while dies_at[0]:
        with pytest.raises(faults.Killed):
            registry.download(published.version, tmp_path / "out", tmp_path / "cache")
        assert not (tmp_path / "out").exists()
        asked.clear()
        dies_at.pop(0)
    registry.download(published.version, tmp_path / "out", tmp_path / "cache")
    assert asked[_weights_key(published)] == 10 - 5 - 3
    verify_folder(tmp_path / "out", published.manifest)


def test_of_a_journal_that_was_cut_off_the_whole_lines_count(
    store: ObjectStore, published: PublishedVersion, model: Path, tmp_path: Path, faults
) -> None:
    asked: Counter[str] = Counter()

    def count(when: str, operation: str, key: str) -> None:
        asked[key] += when == "before" and operation == "range"

    weights = published.manifest.file("model.safetensors")
    assert weights is not None
    partial = tmp_path / "cache" / "partial" / weights.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes((model / "model.safetensors").read_bytes()[: 3 * PART] + bytes(7 * PART))
    partial.with_name(f"{partial.name}.parts").write_text("0\n1\n2\n7")
    registry = Registry(faults.Interposed(store, count), "m")
    registry.download(published.version, tmp_path / "out", tmp_path / "cache")
    assert asked[_weights_key(published)] == 7
    verify_folder(tmp_path / "out", published.manifest)


def test_parts_of_an_earlier_attempt_that_do_not_fit_are_given_up(
    store: ObjectStore, published: PublishedVersion, tmp_path: Path
) -> None:
    weights = published.manifest.file("model.safetensors")
    assert weights is not None
    partial = tmp_path / "cache" / "partial" / weights.sha256
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"\0" * weights.size)
    partial.with_name(f"{partial.name}.parts").write_text("0\n1\n2\nnonsense\n7")
    Registry(store, "m").download(published.version, tmp_path / "out", tmp_path / "cache")
    verify_folder(tmp_path / "out", published.manifest)


def test_a_file_that_went_bad_in_the_cache_is_downloaded_again(
    store: ObjectStore, published: PublishedVersion, tmp_path: Path, faults
) -> None:
    asked: Counter[str] = Counter()

    def count(when: str, operation: str, key: str) -> None:
        asked[key.rpartition("/")[2]] += when == "before" and operation == "range"

    registry = Registry(faults.Interposed(store, count), "m")
    registry.download(published.version, tmp_path / "one", tmp_path / "cache")
    registry.download(published.version, tmp_path / "two", tmp_path / "cache")
    assert asked["model.safetensors"] == 10
    weights = published.manifest.file("model.safetensors")
    assert weights is not None
    cached = tmp_path / "cache" / "sha256" / weights.sha256
    cached.chmod(0o644)
    cached.write_bytes(_changed(cached.read_bytes()))
    registry.download(published.version, tmp_path / "three", tmp_path / "cache")
    assert asked["model.safetensors"] == 20
    verify_folder(tmp_path / "three", published.manifest)


def test_eight_downloads_that_share_a_cache_download_each_file_once(
    store: ObjectStore, published: PublishedVersion, tmp_path: Path, faults
) -> None:
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def count(when: str, operation: str, key: str) -> None:
        if when == "before" and operation == "range":
            with lock:
                asked[key.rpartition("/")[2]] += 1

    def download(number: int) -> None:
        # Half of them fill the same folder.
        into = tmp_path / f"out-{number // 2}"
        Registry(faults.Interposed(store, count), "m").download(published.version, into, tmp_path / "cache")
        verify_folder(into, published.manifest)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(download, range(8)))
    assert asked == {"model.safetensors": 10, "config.json": 1, "vocab.txt": 1}


@pytest.mark.integration
def test_four_processes_share_a_cache(s3, model: Path, tmp_path: Path) -> None:
    published = open_registry(s3.fresh_uri(), "m", s3.config).publish(model, RUN, Metadata())
    code = (
        "import sys; from pathlib import Path\n"
        "from luthier_artifacts import StorageConfig, download_version, verify_folder\n"
        "uri, endpoint, credentials, into, cache = sys.argv[1:]\n"
        "config = StorageConfig(endpoint=endpoint, credentials_env=credentials)\n"
        "verify_folder(Path(into), download_version(uri, Path(into), config, cache=Path(cache)))\n"
    )
    arguments = [sys.executable, "-W", "error", "-c", code, published.uri, s3.endpoint, s3.admin_env]
    processes = [
        subprocess.Popen([*arguments, str(tmp_path / f"out-{number}"), str(tmp_path / "cache")]) for number in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    inodes = {(tmp_path / f"out-{number}" / "model.safetensors").stat().st_ino for number in range(4)}
    assert len(inodes) == 1


def test_an_input_that_changed_is_not_taken_from_the_cache(storage, store: ObjectStore, tmp_path: Path) -> None:
    uri, digests = f"{storage.uri}/data/reviews.csv", []
    for number, content in enumerate((b"text,label\n", b"text,label\n", b"text,lable\n")):
        store.write("data/reviews.csv", content)
        into = tmp_path / str(number)
        fetched = fetch_files(uri, into, storage.config, cache=tmp_path / "cache")
        assert (into / "reviews.csv").read_bytes() == content
        assert [(entry.path, entry.size) for entry in fetched.files.values()] == [("reviews.csv", 11)]
        digests.append(fetched.digest)
    assert digests[0] == digests[1] != digests[2]
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_base_model_is_the_same_wherever_its_folder_lies(
    storage, store: ObjectStore, model: Path, tmp_path: Path
) -> None:
    files = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    for place in ("bases/one", "bases/two"):
        store.upload({f"{place}/{path}": source for path, source in files.items()})
    store.write("bases/one/.gitattributes", b"hidden")
    store.write("bases/one/pytorch_model.bin", b"unwanted")

    def wanted(path: str) -> bool:
        return not path.endswith(".bin")

    one = fetch_tree(f"{storage.uri}/bases/one", tmp_path / "one", storage.config, wanted=wanted)
    two = fetch_tree(f"{storage.uri}/bases/two/", tmp_path / "two", storage.config, cache=tmp_path / "cache")
    local = fetch_tree(f"file://{model}", tmp_path / "three", cache=tmp_path / "cache")
    assert one.digest == two.digest == local.digest
    verify_folder(tmp_path / "one", two.files.values())


def test_one_uri_may_name_several_inputs(storage, store: ObjectStore, tmp_path: Path) -> None:
    names = ["b.csv", "a.csv.gz", "a[1].csv", "deep/c.csv", "notes.txt", ".hidden.csv", "_SUCCESS"]
    for name in names:
        store.write(f"data/{name}", name.encode())

    def fetch(uri: str) -> list[str]:
        dest = tmp_path / str(len(list(tmp_path.iterdir())))
        found = fetch_files(uri, dest, storage.config, wanted=lambda path: ".csv" in path).files
        assert all((dest / name).read_text().endswith(name) for name in found)
        return list(found)

    data = f"{storage.uri}/data"
    assert fetch(f"{data}/") == ["a.csv.gz", "a[1].csv", "b.csv", "deep/c.csv"]
    assert fetch(f"{data}/deep/") == ["c.csv"]
    assert fetch(f"{data}/*") == ["_SUCCESS", "a.csv.gz", "a[1].csv", "b.csv", "notes.txt"]
    assert fetch(f"{data}/*.csv") == ["a[1].csv", "b.csv"]
    assert fetch(f"{data}/a*csv*") == ["a.csv.gz", "a[1].csv"]
    assert fetch(f"{data}/a[1].*") == ["a[1].csv"]
    assert fetch(f"{data}/b.csv") == ["b.csv"]
    for uri in (f"{data}/z*", f"{data}/none.csv", f"{data}/b.csv/", f"{storage.uri}/nothing/", f"{data}"):
        with pytest.raises(ObjectNotFound):
            fetch(uri)
    with pytest.raises(InvalidUri, match=r"has \* in the name of a folder; it may stand in the last part only"):
        fetch(f"{storage.uri}/d*/b.csv")


def test_an_input_that_is_not_there_is_named(storage, store: ObjectStore, tmp_path: Path) -> None:
    store.write("data/reviews.csv", b"x")
    for uri, call in (
        (f"{storage.uri}/data/none.csv", lambda uri: fetch_files(uri, tmp_path / "x", storage.config)),
        (f"{storage.uri}/data", lambda uri: fetch_files(uri, tmp_path / "x", storage.config)),
        (f"{storage.uri}/nothing", lambda uri: fetch_tree(uri, tmp_path / "x", storage.config)),
        (f"{storage.uri}/data/reviews.csv", lambda uri: fetch_tree(uri, tmp_path / "x", storage.config)),
    ):
        with pytest.raises(ObjectNotFound) as caught:
            call(uri)
        assert uri in str(caught.value)
    assert not (tmp_path / "x").exists()
