"""Storage for every tier: a real S3 server (see luthier_dev.seaweed), and tests that run on it and on a folder."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from luthier_artifacts import StorageConfig
from luthier_dev.seaweed import Seaweed, start_seaweed

# How long an example takes says more of what else the machine does; pytest's timeout ends one that hangs.
settings.register_profile("luthier", deadline=None)
settings.load_profile("luthier")


@dataclass(frozen=True)
class S3:
    """A running server with one bucket, an identity that may do everything and one that may only read."""

    server: Seaweed
    bucket: str
    credentials_dir: Path
    reader_credentials_dir: Path

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    @property
    def access_key(self) -> str:
        return self.server.admin.access_key

    @property
    def secret_key(self) -> str:
        return self.server.admin.secret_key

    @property
    def config(self) -> StorageConfig:
        """How the registry reaches this server, as the identity that may do everything."""
        return StorageConfig(endpoint=self.endpoint, credentials_dir=self.credentials_dir)

    def fresh_prefix(self) -> str:
        """A prefix that no other test uses, without slashes at its ends."""
        return f"t-{secrets.token_hex(6)}"

    def fresh_uri(self) -> str:
        """The s3:// URI of a fresh prefix."""
        return f"s3://{self.bucket}/{self.fresh_prefix()}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """SeaweedFS as a process; one for the whole session, so a test keeps to a fresh prefix."""
    folder = tmp_path_factory.mktemp("seaweed")
    server = start_seaweed(folder, buckets=("models",))
    try:
        yield S3(
            server=server,
            bucket="models",
            credentials_dir=server.admin.write_to(folder / "credentials"),
            reader_credentials_dir=server.reader.write_to(folder / "reader-credentials"),
        )
    finally:
        server.stop()


@dataclass(frozen=True)
class Storage:
    """An empty place in one kind of storage."""

    uri: str
    config: StorageConfig


@pytest.fixture(
    params=[pytest.param("file", marks=pytest.mark.unit), pytest.param("s3", marks=pytest.mark.integration)]
)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A fresh place, once in a local folder (unit tier) and once on the S3 server (integration tier)."""
    if request.param == "file":
        return Storage(f"file://{tmp_path}/storage", StorageConfig())
    s3: S3 = request.getfixturevalue("s3")
    return Storage(s3.fresh_uri(), s3.config)
