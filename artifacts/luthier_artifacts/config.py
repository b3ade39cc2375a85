"""How storage is reached: endpoint, trust and credentials. Values only; the S3 adapter turns them into a client.

Credentials come from a folder that holds a mounted Secret, or from environment variables with a prefix of their own, so
that a pod can hold one set for its output and another for its dataset; or else from boto3's default chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from luthier_api.documents import Access, credential_env
from luthier_artifacts.keys import ACCESS_KEY, age_s, mounted_folder

ChecksumMode = Literal["when_required", "when_supported"]


@dataclass(frozen=True)
class StorageConfig:
    """How to reach one storage endpoint. For file:// URIs nothing of it is used but `concurrency`.

    Attributes:
        endpoint: URL of an S3-compatible server; None is AWS.
        region: Region name; None is us-east-1, which most other servers ignore.
        ca_bundle: PEM file with the certificate authorities of a private endpoint.
        force_path_style: Bucket in the path instead of the host name; None is true with an endpoint.
        credentials_env: Prefix of environment variables of those names, such as LUTHIER_OUTPUT_.
        credentials_dir: Folder with a file of each of those names, read for each request; it goes before the variables.
        renewal_wait_s: How long a request whose keys have expired meanwhile is tried again, in the hope of others.
        on_waiting: Is told why a request waits for other keys, and None when it waits no more.
        checksums: boto3's extra checksums on every request; some servers refuse them, so only when required.
        connect_timeout_s: Seconds to wait for a connection.
        read_timeout_s: Seconds to wait for the next bytes of an answer.
        max_attempts: How often a request is tried in all when storage does not answer.
        concurrency: Requests in flight while files are uploaded or downloaded.
    """

    endpoint: str | None = None
    region: str | None = None
    ca_bundle: Path | None = None
    force_path_style: bool | None = None
    credentials_env: str | None = None
    credentials_dir: Path | None = None
    renewal_wait_s: float = 0.0
    on_waiting: Callable[[str | None], object] | None = field(default=None, compare=False, repr=False)
    checksums: ChecksumMode = "when_required"
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    max_attempts: int = 4
    concurrency: int = 8

    @classmethod
    def from_access(cls, access: Access) -> StorageConfig:
        """Return the configuration that a run document or a revision's arguments describe."""
        folder = mounted_folder(access.credentials) if access.credentials else None
        variable = credential_env(access.credentials)[ACCESS_KEY] if access.credentials and not folder else None
        return cls(
            endpoint=access.endpoint,
            region=access.region,
            ca_bundle=Path(access.ca_bundle) if access.ca_bundle else None,
            force_path_style=access.force_path_style,
            credentials_env=variable.removesuffix(ACCESS_KEY) if variable else None,
            credentials_dir=folder,
        )

    @property
    def keys_age_s(self) -> float:
        """Seconds since the keys in `credentials_dir` were last replaced; 0 if they are not in such a folder."""
        return age_s(self.credentials_dir) if self.credentials_dir else 0.0

    @property
    def path_style(self) -> bool:
        """Whether the bucket goes into the path."""
        return self.endpoint is not None if self.force_path_style is None else self.force_path_style
