"""Keys that expire while storage is used: the Secret's next ones are taken, in the middle of an upload too."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luthier_artifacts import (
    CredentialsExpired,
    Metadata,
    StorageConfig,
    StorageDenied,
    fetch_files,
    open_registry,
    open_store,
    verify_folder,
)
from luthier_dev.seaweed import Credentials
from support.faulty_s3 import FaultyServer
from support.s3 import S3
from support.temporary_keys import MountedSecret, OneToken, temporary

pytestmark = pytest.mark.integration

RUN = "ef" * 32


@pytest.fixture
def secret(tmp_path: Path) -> MountedSecret:
    return MountedSecret(tmp_path / "secret", **temporary("first"))


@pytest.fixture
def session(faulty_server: FaultyServer) -> OneToken:
    """What the server accepts."""
    faulty_server.fault = session = OneToken("first")
    return session


@pytest.fixture
def config(secret: MountedSecret, faulty_server: FaultyServer) -> StorageConfig:
    return StorageConfig(endpoint=faulty_server.endpoint, credentials_dir=secret.folder, renewal_wait_s=60)


def test_keys_that_expire_in_an_upload_are_waited_for_and_only_what_is_missing_is_sent_again(
    s3: S3,
    secret: MountedSecret,
    session: OneToken,
    faulty_server: FaultyServer,
    config: StorageConfig,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(6):
        (folder / f"part-{number}").write_bytes(os.urandom(1000))
    registry = open_registry(s3.fresh_uri(), "m", replace(config, concurrency=1))
    uploads: list[str] = []

    def expire(handler: Any) -> bool:
        if handler.command == "PUT" and "/part-" in handler.path:
            uploads.append(handler.path)
            if len(uploads) == 3:
                session.valid = "second"
                threading.Timer(0.3, lambda: secret.replace(**temporary("second"))).start()
        return session(handler)

    faulty_server.fault = expire
    published = registry.publish(folder, RUN, Metadata())
    assert session.refused and len(uploads) < 6 + 6
    verify_folder(tmp_path / "out", registry.download(published.version, tmp_path / "out"))
    assert registry.list_versions() == [published.version]


def calls(config: StorageConfig, uri: str, folder: Path) -> dict[str, Callable[[], object]]:
    store = open_store(uri, config)
    (folder / "x").write_text("x")
    return {
        "write": lambda: store.write("x", b"1"),
        "read": lambda: store.read("x"),
        "stat": lambda: store.stat("x"),
        "stat of nothing": lambda: fetch_files(f"{uri}/none.csv", folder / "none", config),
        "range": lambda: store.read_range("x", 0, 1).close(),
        "list": lambda: list(store.list()),
        "upload": lambda: store.upload({"y": folder / "x"}),
        "delete": lambda: store.delete(["y"]),
    }


def test_every_request_says_that_the_keys_have_expired_also_those_whose_answer_has_no_body(
    s3: S3, session: OneToken, config: StorageConfig, tmp_path: Path
) -> None:
    session.valid = "another"
    begun = time.monotonic()
    for call in calls(config, s3.fresh_uri(), tmp_path).values():
        with pytest.raises(CredentialsExpired, match=r"have expired \(ExpiredToken\); put new ones into the Secret"):
            call()
    # Keys that never were accepted are not waited for.
    assert time.monotonic() - begun < config.renewal_wait_s / 2


@pytest.mark.parametrize("name", ["write", "read", "stat", "range", "list", "upload", "delete"])
def test_every_request_takes_the_new_keys(
    s3: S3, secret: MountedSecret, session: OneToken, config: StorageConfig, tmp_path: Path, name: str
) -> None:
    every = calls(config, s3.fresh_uri(), tmp_path)
    every["write"]()
    session.valid = "second"
    threading.Timer(0.2, lambda: secret.replace(**temporary("second"))).start()
    every[name]()
    assert session.refused


def test_keys_that_are_not_renewed_are_given_up_after_the_time_that_is_configured(
    s3: S3, session: OneToken, config: StorageConfig
) -> None:
    store = open_store(s3.fresh_uri(), replace(config, renewal_wait_s=0.5))
    store.write("x", b"1")
    session.valid = "second"
    begun = time.monotonic()
    with pytest.raises(CredentialsExpired):
        store.write("x", b"2")
    assert 0.5 <= time.monotonic() - begun < 20


def test_static_keys_that_were_replaced_and_revoked_are_not_denied_but_waited_for(s3: S3, tmp_path: Path) -> None:
    """On the real server: the pod still has the old key, which is gone, when the Secret has the new one already."""
    admin = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    revoked = Credentials.generate()
    secret = MountedSecret(tmp_path / "secret", **admin)
    config = StorageConfig(endpoint=s3.endpoint, credentials_dir=secret.folder, renewal_wait_s=60)
    store = open_store(s3.fresh_uri(), config)
    store.write("x", b"1")
    secret.replace(AWS_ACCESS_KEY_ID=revoked.access_key, AWS_SECRET_ACCESS_KEY=revoked.secret_key)
    with pytest.raises(StorageDenied, match="does not know the access key"):
        open_store(s3.fresh_uri(), config).write("x", b"1")
    threading.Timer(0.2, lambda: secret.replace(**admin)).start()
    store.write("x", b"2")
    assert store.read("x")[0] == b"2"
