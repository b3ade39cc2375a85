"""Names of places: s3://bucket/prefix, pvc://claim/folder and file:///folder, and the relative paths below them.

The only module that decides whether a name is safe. Manifests come from buckets that somebody else may write, so a
path that could leave its folder (`..`, absolute, control characters) is refused when it is written and when it is
read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from luthier_api.storage import CLAIMS_DIR
from luthier_artifacts.errors import InvalidUri

# S3 allows 1024 bytes for a whole key; the rest is for the prefix.
MAX_PATH_BYTES = 512
MAX_KEY_BYTES = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Location:
    """A parsed URI. `path` has no slash at its end; but for file none at its start either, and may be empty."""

    scheme: Literal["s3", "pvc", "file"]
    bucket: str
    """The bucket, or the claim; empty for file."""
    path: str

    @property
    def folder(self) -> Path | None:
        """Where it lies in the local file system, if it does. The operator mounts a claim under its own name."""
        if self.scheme == "file":
            return Path(self.path)
        return Path(CLAIMS_DIR, self.bucket, self.path) if self.scheme == "pvc" else None

    @property
    def uri(self) -> str:
        """The URI in its one spelling, without a slash at its end."""
        if self.scheme == "file":
            return f"file://{self.path.replace('%', '%25')}"
        return f"{self.scheme}://{self.bucket}/{self.path}".rstrip("/")

    def split(self) -> tuple[Location, str]:
        """The folder that holds this object, and its name there.

        Raises:
            InvalidUri: if the URI names a bucket or the root folder and no object.
        """
        folder, _, name = self.path.rpartition("/")
        if not name:
            raise InvalidUri(f"{self.uri} names no file; add its path.")
        return Location(self.scheme, self.bucket, folder or ("/" if self.scheme == "file" else "")), name


def parse_uri(uri: str) -> Location:
    """Parse s3://bucket/prefix, pvc://claim/folder or file:///folder.

    What follows a bucket or claim is taken literally: no query, no percent-decoding. In file:// `%20` is a space, as
    `Path.as_uri` writes it, and a space is one too.

    Raises:
        InvalidUri: for any other scheme, a bucket name that cannot exist, and paths with `..`, `//` or control
            characters.
    """
    if uri.startswith("file://"):
        path = unquote(uri.removeprefix("file://"))
        if not path.startswith("/"):
            raise InvalidUri(f"{uri!r} is not a file URI; write file:///folder with three slashes.")
        rest = path.strip("/")
        if rest:
            _check_segments(rest, uri)
        return Location("file", "", f"/{rest}")
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise InvalidUri(f"{uri!r} names no valid bucket; write s3://bucket/prefix.")
        return Location("s3", bucket, _key(key, uri))
    if uri.startswith("pvc://"):
        claim, _, path = uri.removeprefix("pvc://").partition("/")
        if not _CLAIM.fullmatch(claim):
            raise InvalidUri(f"{uri!r} names no valid PersistentVolumeClaim; write pvc://claim/folder.")
        return Location("pvc", claim, _key(path, uri))
    raise InvalidUri(f"{uri!r} is not understood here; write s3://bucket/prefix or file:///folder.")


def _key(key: str, uri: str) -> str:
    key = key.removesuffix("/")
    if key:
        _check_segments(key, uri)
    return key


def safe_path(path: str) -> str:
    """Return a relative path unchanged if joining it to any folder stays inside that folder.

    Raises:
        InvalidUri: otherwise.
    """
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise InvalidUri(f"The file name {path[:40]!r}... is longer than {MAX_PATH_BYTES} bytes.")
    if "\\" in path:
        raise InvalidUri(f"The file name {path!r} holds a backslash, which some systems read as a folder.")
    _check_segments(path, path)
    return path


def join_key(prefix: str, path: str) -> str:
    """Join two keys; either may be empty, and no double slash comes of it."""
    return f"{prefix}/{path}" if prefix and path else prefix or path


def local_path(folder: Path, path: str) -> Path:
    """Return where a relative path lies under a local folder.

    Raises:
        InvalidUri: if it could lie outside.
    """
    return folder / safe_path(path)


def _check_segments(path: str, shown: str) -> None:
    if _CONTROL.search(path):
        raise InvalidUri(f"The name {shown!r} holds a control character.")
    if len(path.encode()) > MAX_KEY_BYTES:
        raise InvalidUri(f"The name {shown[:40]!r}... is longer than {MAX_KEY_BYTES} bytes.")
    if any(segment in ("", ".", "..") for segment in path.split("/")):
        raise InvalidUri(f"The name {shown!r} holds an empty segment, '.' or '..', which is refused.")
