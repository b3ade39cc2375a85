"""The S3 server that the tests share, and an empty place in any kind of storage."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from luthier_artifacts import StorageConfig
from luthier_dev.seaweed import Seaweed


@dataclass(frozen=True)
class S3:
    """A running server with one bucket, an identity that may do everything and one that may only read.

    The keys of each are in environment variables; `admin_env` and `reader_env` are how their names begin.
    """

    server: Seaweed
    bucket: str
    admin_env: str
    reader_env: str

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
        return StorageConfig(endpoint=self.endpoint, credentials_env=self.admin_env)

    def fresh_prefix(self) -> str:
        """A prefix that no other test uses, without slashes at its ends."""
        return f"t-{secrets.token_hex(6)}"

    def fresh_uri(self) -> str:
        """The s3:// URI of a fresh prefix."""
        return f"s3://{self.bucket}/{self.fresh_prefix()}"


@dataclass(frozen=True)
class Storage:
    """An empty place in one kind of storage."""

    uri: str
    config: StorageConfig
