"""Everything that a server and a network do to us has one error and one sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from luthier_api.documents import Access
from luthier_artifacts import (
    BucketNotFound,
    ConditionalWritesUnsupported,
    Metadata,
    ObjectNotFound,
    Registry,
    StorageConfig,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    fetch_files,
    open_registry,
    open_store,
    verify_folder,
)
from luthier_dev.seaweed import Credentials

pytestmark = pytest.mark.integration

RUN = "ef" * 32


@pytest.fixture
def through(s3, faulty_server) -> StorageConfig:
    """A configuration that goes through the faulty server, with few and short attempts."""
    return replace(s3.config, endpoint=faulty_server.endpoint, max_attempts=3, read_timeout_s=5, connect_timeout_s=2)


def _every_call(config: StorageConfig, uri: str, model: Path):
    """The ways in which the rest of Luthier reaches storage."""
    registry = open_registry(uri, "m", config)
    return {
        "probe": registry.probe_conditional_writes,
        "publish": lambda: registry.publish(model, RUN, Metadata()),
        "find": lambda: registry.find_run(RUN),
        "list": registry.list_versions,
        "stat": lambda: open_store(uri, config).stat("data.csv"),
        "fetch": lambda: fetch_files(f"{uri}/data.csv", model / "x", config),
        "upload": lambda: open_store(uri, config).upload({"config.json": model / "config.json"}),
        "delete": lambda: open_store(uri, config).delete(["x"]),
    }


def _says(error: pytest.ExceptionInfo[StorageError], *words: str) -> None:
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.fixture
def acting_as(s3, monkeypatch: pytest.MonkeyPatch):
    """How to reach the server with other keys."""

    def act(credentials: Credentials) -> StorageConfig:
        for name, value in credentials.environment("LUTHIER_X_").items():
            monkeypatch.setenv(name, value)
        return replace(s3.config, credentials_env="LUTHIER_X_")

    return act


def test_an_unknown_key_is_denied_everywhere_and_its_secret_is_never_shown(s3, acting_as, model: Path) -> None:
    stranger = Credentials.generate()
    config = acting_as(stranger)
    for call in _every_call(config, s3.fresh_uri(), model).values():
        with pytest.raises(StorageDenied) as caught:
            call()
        assert stranger.secret_key not in str(caught.value) and stranger.access_key not in str(caught.value)
        _says(caught, s3.endpoint)
    assert stranger.secret_key not in repr(config)


def test_a_wrong_secret_is_denied_and_named(s3, acting_as) -> None:
    config = acting_as(Credentials(access_key=s3.access_key, secret_key="wrong"))
    with pytest.raises(StorageDenied) as caught:
        open_registry(s3.fresh_uri(), "m", config).find_run(RUN)
    _says(caught, "AWS_SECRET_ACCESS_KEY", s3.endpoint)


def test_keys_that_may_only_read_are_found_out_by_the_probe(s3, model: Path, tmp_path: Path) -> None:
    uri = s3.fresh_uri()
    published = open_registry(uri, "m", s3.config).publish(model, RUN, Metadata())
    reader = open_registry(uri, "m", replace(s3.config, credentials_env=s3.reader_env))
    with pytest.raises(StorageDenied) as caught:
        reader.probe_conditional_writes()
    _says(caught, "may not write", uri)
    assert reader.list_versions() == [published.version]
    verify_folder(tmp_path / "out", reader.download(published.version, tmp_path / "out"))


def test_a_missing_bucket_is_named_everywhere(s3, model: Path) -> None:
    calls = _every_call(s3.config, "s3://no-such-bucket/x", model)
    for name, call in calls.items():
        if name == "delete":
            # SeaweedFS answers that what is not there is deleted.
            continue
        with pytest.raises(BucketNotFound) as caught:
            call()
        _says(caught, "no-such-bucket does not exist", s3.endpoint)


def test_a_missing_object_in_a_bucket_that_exists_is_another_error(s3) -> None:
    with pytest.raises(ObjectNotFound) as caught:
        open_store(s3.fresh_uri(), s3.config).stat("none.csv")
    _says(caught, "none.csv does not exist")


def test_a_secret_without_a_key_is_named(s3, acting_as, monkeypatch: pytest.MonkeyPatch) -> None:
    config = acting_as(s3.server.admin)
    for missing in ("LUTHIER_X_AWS_SECRET_ACCESS_KEY", "LUTHIER_X_AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(missing)
        with pytest.raises(StorageDenied) as caught:
            open_registry(s3.fresh_uri(), "m", config).find_run(RUN)
        _says(caught, missing, "Secret")


def test_no_credentials_at_all_are_denied(s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    config = StorageConfig(endpoint=s3.endpoint, read_timeout_s=61)
    with pytest.raises(StorageDenied, match="no credentials"):
        open_registry(s3.fresh_uri(), "m", config).find_run(RUN)


def test_keys_that_change_are_used_by_the_next_request(s3, acting_as) -> None:
    store = open_store(s3.fresh_uri(), acting_as(Credentials.generate()))
    with pytest.raises(StorageDenied):
        store.write("x", b"1")
    acting_as(s3.server.admin)
    store.write("x", b"1")


def test_a_run_documents_access_names_the_credentials_of_its_role(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_DATASET_AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("LUTHIER_DATASET_AWS_SECRET_ACCESS_KEY", s3.secret_key)
    config = StorageConfig.from_access(Access(endpoint=s3.endpoint, credentials="dataset"))
    open_store(s3.fresh_uri(), config).write("x", b"1")


def test_an_endpoint_that_does_not_answer_is_unavailable_and_named(s3, model: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        config = replace(s3.config, endpoint=endpoint, max_attempts=2, connect_timeout_s=1)
        for call in _every_call(config, s3.fresh_uri(), model).values():
            with pytest.raises(StorageUnavailable) as caught:
                call()
            assert caught.value.retryable
            _says(caught, endpoint)


def test_a_private_endpoint_is_trusted_by_its_authority_and_only_by_it(s3, tls_server, tmp_path: Path) -> None:
    endpoint, authority = tls_server
    uri = s3.fresh_uri()
    with pytest.raises(StorageError, match="not trusted; set caBundle") as caught:
        open_store(uri, replace(s3.config, endpoint=endpoint)).write("x", b"1")
    _says(caught, endpoint)
    store = open_store(uri, replace(s3.config, endpoint=endpoint, ca_bundle=authority))
    store.write("x", b"1")
    assert store.read("x")[0] == b"1"


def test_https_to_a_server_without_tls_is_named(s3) -> None:
    endpoint = s3.endpoint.replace("http:", "https:")
    with pytest.raises(StorageError, match="does not answer in TLS") as caught:
        open_store(s3.fresh_uri(), replace(s3.config, endpoint=endpoint)).write("x", b"1")
    _says(caught, endpoint)


def test_a_ca_bundle_that_is_not_there_is_named(s3, tmp_path: Path) -> None:
    config = replace(s3.config, endpoint=s3.endpoint.replace("http:", "https:"), ca_bundle=tmp_path / "none.crt")
    with pytest.raises(StorageError, match=r"none\.crt"):
        open_store(s3.fresh_uri(), config).write("x", b"1")


def test_a_server_that_ignores_conditions_is_found_out_before_anything_is_published(
    s3, faulty_server, through: StorageConfig, model: Path
) -> None:
    for headers, word in (({"if-none-match"}, "If-None-Match"), ({"if-match"}, "If-Match")):
        uri = s3.fresh_uri()
        faulty_server.drop_headers = frozenset(headers)
        for call in (
            lambda registry: registry.probe_conditional_writes(),
            lambda registry: registry.publish(model, RUN, Metadata()),
            lambda registry: registry.put_checkpoint(RUN, 1, model),
        ):
            with pytest.raises(ConditionalWritesUnsupported) as caught:
                call(open_registry(uri, "m", through))
            _says(caught, word, uri)
        assert [info.key for info in open_store(uri, s3.config).list()] == ["m/.probe"]
    faulty_server.drop_headers = frozenset()
    open_registry(s3.fresh_uri(), "m", through).publish(model, RUN, Metadata())


def test_the_probe_writes_once_and_then_is_only_refused(s3, faulty_server, through: StorageConfig) -> None:
    uri = s3.fresh_uri()
    for expected in (3, 2):
        faulty_server.requests.clear()
        registry = open_registry(uri, "m", through)
        registry.probe_conditional_writes()
        registry.probe_conditional_writes()
        assert len(faulty_server.requests) == expected


def test_a_server_that_is_busy_for_a_moment_is_asked_again(s3, faulty_server, through, model: Path) -> None:
    failed: set[str] = set()
    lock = threading.Lock()

    def busy_once(handler) -> bool:
        with lock:
            first = f"{handler.command} {handler.path}" not in failed
            failed.add(f"{handler.command} {handler.path}")
        if first:
            handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            handler.answer(503, [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>")
        return first

    faulty_server.fault = busy_once
    published = open_registry(s3.fresh_uri(), "m", through).publish(model, RUN, Metadata())
    assert not published.reused and len(failed) >= 8


def test_a_server_that_stays_busy_is_unavailable_after_a_bounded_number_of_attempts(
    s3, faulty_server, through: StorageConfig, model: Path
) -> None:
    def busy(handler) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.answer(503, [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>")
        return True

    faulty_server.fault = busy
    with pytest.raises(StorageUnavailable) as caught:
        open_registry(s3.fresh_uri(), "m", through).find_run(RUN)
    _says(caught, faulty_server.endpoint, "try again later")
    assert len(faulty_server.requests) == through.max_attempts


def test_a_write_that_took_effect_although_its_answer_was_lost_is_not_mistaken_for_a_race(
    s3, faulty_server, through: StorageConfig, model: Path, tmp_path: Path
) -> None:
    lost: set[str] = set()
    lock = threading.Lock()

    def lose_the_first_answer(handler) -> bool:
        with lock:
            lose = handler.command == "PUT" and handler.path not in lost
            lost.add(handler.path)
        if lose:
            server_answer = faulty_server.forward(handler)
            assert server_answer[0] in (200, 412)
            handler.cut()
        return lose

    faulty_server.fault = lose_the_first_answer
    uri = s3.fresh_uri()
    published = open_registry(uri, "m", through).publish(model, RUN, Metadata())
    assert not published.reused
    honest = open_registry(uri, "m", s3.config)
    assert honest.list_versions() == [published.version]
    verify_folder(tmp_path / "out", honest.download(published.version, tmp_path / "out"))


def test_a_download_whose_stream_breaks_again_and_again_arrives_whole(
    s3, faulty_server, through: StorageConfig, model: Path, tmp_path: Path
) -> None:
    uri = s3.fresh_uri()
    published = open_registry(uri, "m", s3.config).publish(model, RUN, Metadata())
    cuts: list[str] = []
    lock = threading.Lock()

    def cut_twice(handler) -> bool:
        with lock:
            cut = handler.command == "GET" and handler.headers.get("Range") and cuts.count(handler.path) < 2
            if cut:
                cuts.append(handler.path)
        if cut:
            status, headers, body = faulty_server.forward(handler)
            handler.answer(status, headers, body, cut_at=len(body) // 2)
        return bool(cut)

    faulty_server.fault = cut_twice
    registry = open_registry(uri, "m", through)
    verify_folder(tmp_path / "out", registry.download(published.version, tmp_path / "out"))
    assert len(cuts) == 2 * 3


def test_a_download_that_is_killed_goes_on_where_it_stopped(
    s3, faulty_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = s3.fresh_uri()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(os.urandom(1024) * 20)
    published = open_registry(uri, "m", s3.config).publish(tmp_path / "model", RUN, Metadata())
    stalled, release = threading.Event(), threading.Event()

    def stall_at_the_twelfth(handler) -> bool:
        if "bytes=11264-" in handler.headers.get("Range", ""):
            stalled.set()
            release.wait(30)
        return False

    faulty_server.fault = stall_at_the_twelfth
    code = (
        "import sys; from pathlib import Path; from luthier_artifacts import StorageConfig, download_version, parts\n"
        "parts.PART_BYTES = 1024\n"
        "uri, endpoint, credentials, into, cache = sys.argv[1:]\n"
        "config = StorageConfig(endpoint=endpoint, credentials_env=credentials, concurrency=1)\n"
        "download_version(uri, Path(into), config, cache=Path(cache))\n"
    )
    arguments = [
        published.uri,
        faulty_server.endpoint,
        s3.admin_env,
        *map(str, (tmp_path / "out", tmp_path / "cache")),
    ]
    with subprocess.Popen([sys.executable, "-c", code, *arguments]) as process:
        assert stalled.wait(30)
        process.send_signal(signal.SIGKILL)
    release.set()
    assert not (tmp_path / "out").exists()
    faulty_server.fault = lambda handler: False
    faulty_server.requests.clear()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    verify_folder(tmp_path / "out", published.manifest)
    assert len([request for request in faulty_server.requests if request.endswith("/weights")]) == 9


@pytest.mark.parametrize(("mode", "sent"), [(None, False), ("when_required", False), ("when_supported", True)])
def test_extra_checksums_are_sent_only_where_they_are_asked_for(
    s3, faulty_server, model: Path, tmp_path: Path, mode, sent: bool
) -> None:
    config = replace(s3.config, endpoint=faulty_server.endpoint, **({"checksums": mode} if mode else {}))
    seen = {"PUT": [], "GET": []}

    def watch(handler) -> bool:
        names = [name.lower() for name in handler.headers]
        seen.get(handler.command, []).append(any(name.startswith("x-amz-checksum-") for name in names))
        return False

    faulty_server.fault = watch
    registry = Registry(open_store(s3.fresh_uri(), config), "m")
    published = registry.publish(model, RUN, Metadata())
    verify_folder(tmp_path / "out", registry.download(published.version, tmp_path / "out"))
    assert set(seen["PUT"]) == {sent}
    assert any(seen["GET"]) is sent


def test_files_of_several_parts_are_uploaded_whole(s3, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(os.urandom(1024 * 1024) * 40 + b"end")
    registry = open_registry(s3.fresh_uri(), "m", s3.config)
    sent: list[int] = []
    published = registry.publish(tmp_path / "model", RUN, Metadata(), progress=sent.append)
    assert sum(sent) == published.size_bytes == 40 * 1024 * 1024 + 3
    verify_folder(tmp_path / "out", registry.download(published.version, tmp_path / "out", tmp_path / "cache"))
