"""The S3 adapter: the only module that calls boto3, and the one place where its errors become ours (see `errors`).

Retries are botocore's own (`standard` mode, bounded attempts and time-outs), but for keys that expire (see `renewal`).
It must not know what the objects mean.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.subscribers import BaseSubscriber
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential
from typing_extensions import override

from luthier_artifacts.config import StorageConfig
from luthier_artifacts.credentials import botocore_session
from luthier_artifacts.errors import IntegrityError, ObjectNotFound, PreconditionFailed, StorageError
from luthier_artifacts.renewal import awaiting_renewal
from luthier_artifacts.s3_errors import Target, is_conflict, is_missing, is_unexplained, to_storage_error
from luthier_artifacts.store import MAX_DOCUMENT_BYTES, Body, ObjectInfo, ObjectStore, Progress
from luthier_artifacts.uri import Location, join_key

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, PutObjectOutputTypeDef

# 16 MiB parts: few requests for a model of gigabytes, and little lost when one fails.
PART_BYTES = 16 * 1024 * 1024
READ_BYTES = 1024 * 1024
# The most that one DeleteObjects call takes (S3 API reference).
DELETE_BATCH = 1000
CONFLICT_ATTEMPTS = 5


@functools.lru_cache(maxsize=16)
def _client(config: StorageConfig) -> S3Client:
    """One client, and so one pool of connections, for each configuration; clients are thread-safe."""
    if config.ca_bundle and not config.ca_bundle.is_file():
        raise StorageError(f"The CA bundle {config.ca_bundle} is not there; mount it, or correct caBundle.")
    session = boto3.Session(botocore_session=botocore_session(config))
    client: S3Client = session.client(
        "s3",
        endpoint_url=config.endpoint,
        region_name=config.region or session.region_name or "us-east-1",
        verify=str(config.ca_bundle) if config.ca_bundle else None,
        config=Config(
            signature_version="s3v4",
            connect_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": config.max_attempts},
            max_pool_connections=2 * config.concurrency,
            request_checksum_calculation=config.checksums,
            response_checksum_validation=config.checksums,
            s3={"addressing_style": "path" if config.path_style else "auto"},
        ),
    )
    return client


class S3Store(ObjectStore):
    """Objects below s3://bucket/prefix; see `store.ObjectStore` for what each method promises."""

    def __init__(self, location: Location, config: StorageConfig) -> None:
        self._location = location
        self.config = config
        self.accepted = False
        """Whether storage has accepted the keys before."""

    @property
    @override
    def uri(self) -> str:
        return self._location.uri

    @property
    @override
    def concurrency(self) -> int:
        return self.config.concurrency

    @override
    @awaiting_renewal
    def stat(self, key: str) -> ObjectInfo:
        with self._mapped("read", key) as (client, where):
            try:
                found = client.head_object(**where)
            except ClientError as error:
                if is_missing(error):
                    # A HEAD has no body that says which of the two is missing.
                    client.head_bucket(Bucket=self._location.bucket)
                    raise ObjectNotFound(f"{self._shown(key)} does not exist; check the path.") from None
                if is_unexplained(error):
                    client.get_object(**where, Range="bytes=0-0")["Body"].close()
                raise
        return ObjectInfo(key, found["ContentLength"], _plain(found["ETag"]), found["LastModified"])

    @override
    @awaiting_renewal
    def read(self, key: str) -> tuple[bytes, str]:
        with self._mapped("read", key) as (client, where):
            answer = client.get_object(**where)
            with answer["Body"] as body:
                if answer["ContentLength"] > MAX_DOCUMENT_BYTES:
                    raise IntegrityError(f"{self._shown(key)} is too large for a document of the registry.")
                return body.read(), _plain(answer["ETag"])

    @override
    @awaiting_renewal
    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> Body:
        with self._mapped("read", key) as (client, where):
            if etag:
                where["IfMatch"] = _quoted(etag)
            answer = client.get_object(**where, Range=f"bytes={start}-{start + length - 1}")
            total = answer.get("ContentRange", "").rpartition("/")[2]
            if not total.isdigit():
                answer["Body"].close()
                raise StorageError(f"{self._shown(key)} was not sent as a range; the server must support Range.")
        return Body(int(total), self._chunks(key, answer["Body"]), answer["Body"].close)

    @override
    @awaiting_renewal
    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        if if_match is not None:
            condition = {"IfMatch": _quoted(if_match)}
        with self._mapped("write", key) as (client, where):
            return _plain(_put(client, Body=data, **where, **condition)["ETag"])

    @override
    def upload(self, files: Mapping[str, Path], progress: Progress | None = None) -> None:
        self._upload(dict(files), progress)

    @awaiting_renewal
    def _upload(self, left: dict[str, Path], progress: Progress | None) -> None:
        """Upload files, and take those that are there out of `left`."""
        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=self.config.concurrency,
            preferred_transfer_client="classic",
        )
        subscribers = [_Reporter(progress)] if progress else []
        with self._mapped("write", "") as (client, _), create_transfer_manager(client, config) as manager:
            futures = {
                key: manager.upload(str(path), self._location.bucket, self._key(key), subscribers=subscribers)
                for key, path in left.items()
            }
            for key, future in futures.items():
                with self._mapped("write", key):
                    future.result()
                del left[key]

    @override
    @awaiting_renewal
    def delete(self, keys: Collection[str]) -> None:
        ordered = list(keys)
        for first in range(0, len(ordered), DELETE_BATCH):
            batch = ordered[first : first + DELETE_BATCH]
            with self._mapped("delete", batch[0]) as (client, _):
                answer = client.delete_objects(
                    Bucket=self._location.bucket,
                    Delete={"Objects": [{"Key": self._key(key)} for key in batch], "Quiet": True},
                )
                for failed in answer.get("Errors", []):
                    raise ClientError(
                        {"Error": {"Code": failed["Code"], "Message": failed["Message"]}}, "DeleteObjects"
                    )

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        root = f"{self._location.path}/" if self._location.path else ""
        token: str | None = ""
        while token is not None:
            page = self._page(prefix, token)
            for found in page.get("Contents", []):
                # A key that ends in a slash is a folder that some console made.
                if not found["Key"].endswith("/"):
                    key = found["Key"].removeprefix(root)
                    yield ObjectInfo(key, found["Size"], _plain(found["ETag"]), found["LastModified"])
            token = page.get("NextContinuationToken")

    @awaiting_renewal
    def _page(self, prefix: str, token: str) -> ListObjectsV2OutputTypeDef:
        folder = self._key(prefix)
        following: dict[str, Any] = {"ContinuationToken": token} if token else {}
        with self._mapped("list", prefix) as (client, where):
            return client.list_objects_v2(Bucket=where["Bucket"], Prefix=f"{folder}/" if folder else "", **following)

    def _key(self, key: str) -> str:
        return join_key(self._location.path, key)

    def _shown(self, key: str) -> str:
        return f"s3://{self._location.bucket}/{self._key(key)}"

    @contextmanager
    def _mapped(self, action: str, key: str) -> Iterator[tuple[S3Client, dict[str, Any]]]:
        """Give the client and the object's address; every error of the client leaves as one of ours."""
        full = self._key(key)
        try:
            yield _client(self.config), {"Bucket": self._location.bucket, "Key": full}
        except (ClientError, BotoCoreError) as error:
            target = Target(action, self._location.bucket, full, self.config.endpoint, self.accepted)
            mapped = to_storage_error(error, target)
            self.accepted |= isinstance(mapped, ObjectNotFound | PreconditionFailed)
            raise mapped from error
        self.accepted = True

    def _chunks(self, key: str, body: Any) -> Iterator[bytes]:
        with self._mapped("read", key):
            yield from body.iter_chunks(READ_BYTES)


# AWS answers 409 while another conditional write of this key is in flight, and asks to try again.
@retry(
    retry=retry_if_exception(is_conflict),
    stop=stop_after_attempt(CONFLICT_ATTEMPTS),
    wait=wait_random_exponential(multiplier=0.1, max=1),
    reraise=True,
)
def _put(client: S3Client, **request: Any) -> PutObjectOutputTypeDef:
    return client.put_object(**request)


class _Reporter(BaseSubscriber):
    """Tells a caller how many bytes went out; s3transfer calls it from its own threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        self._progress(bytes_transferred)


def _plain(etag: str) -> str:
    return etag.strip('"')


def _quoted(etag: str) -> str:
    return f'"{etag}"'
