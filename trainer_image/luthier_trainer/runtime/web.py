"""Downloads a file from https://, whose sha256 is known. The one place that asks a web server.

The address is the user's, and may be any that the pod can reach. So nothing of what a server answers is shown or kept
but a file of that sha256, no credentials are sent, every redirect must lead to https:// again, and sizes are bounded.
Proxies are those of the environment (HTTPS_PROXY, NO_PROXY).
"""

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from luthier_artifacts import IntegrityError, StorageDenied, StorageUnavailable
from luthier_trainer.runtime.errors import InputNotFound, InvalidData, InvalidSpec
from luthier_trainer.runtime.trust import trusting

WEB_SCHEME = "https://"
# Environment variable, for podEnv of the chart: the largest file that is downloaded.
MAX_BYTES_VARIABLE = "LUTHIER_MAX_DOWNLOAD_BYTES"
MAX_BYTES = 20 * 1024**3
MAX_REDIRECTS = 5
ATTEMPTS = 4
TIMEOUT_S = 60.0
_REDIRECTS = {301, 302, 303, 307, 308}


def download_file(url: str, sha256: str, path: Path, ca_bundle: Path | None = None) -> None:
    """Download a file, or leave nothing.

    Args:
        url: https://host/path.
        sha256: of the file, 64 hex digits.
        path: where it is to lie.
        ca_bundle: PEM file with authorities that are trusted besides the usual ones.

    Raises:
        StorageError: if the server refuses, does not answer, or has another file.
        InputNotFound: if it has none.
        InvalidData: if the file is too large.
        InvalidSpec: if the address is none.
    """
    # Only runs that read from the web or a hub pay for this import.
    import httpx2

    path.parent.mkdir(parents=True, exist_ok=True)
    arriving = path.with_name(f".{path.name}.arriving")
    try:
        client = httpx2.Client(verify=trusting(ca_bundle), timeout=TIMEOUT_S, headers=_HEADERS)
    except (ImportError, ValueError) as error:
        raise StorageUnavailable(f"The proxy that the environment names cannot be used: {error}") from error
    try:
        with client:
            found, kind = _stream(client, url, arriving, _limit())
        if found != sha256:
            raise IntegrityError(_other_file(url, sha256, found, kind))
        arriving.replace(path)
    # The second is how Python says that a host name cannot be one.
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise InvalidSpec(f"{shown(url)} is no address that can be asked, or leads to none: {error}") from error
    finally:
        arriving.unlink(missing_ok=True)


# Packed by the server, the bytes would be others than the user has hashed.
_HEADERS = {"User-Agent": "luthier", "Accept-Encoding": "identity"}


@retry(
    retry=retry_if_exception_type(StorageUnavailable),
    stop=stop_after_attempt(ATTEMPTS),
    wait=wait_random_exponential(multiplier=0.5, max=8),
    reraise=True,
)
def _stream(client: Any, url: str, path: Path, limit: int) -> tuple[str, str]:
    """Write what lies at an address into a file; return its sha256 and what the server calls it."""
    import httpx2

    try:
        for _ in range(MAX_REDIRECTS + 1):
            with client.stream("GET", url) as answer:
                if answer.status_code in _REDIRECTS and "location" in answer.headers:
                    url = _next(url, str(answer.url.join(answer.headers["location"])))
                    continue
                _check(answer.status_code, url)
                return _save(answer, path, limit, url), answer.headers.get("content-type", "")
    except httpx2.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise StorageDenied(
                f"The certificate of {urlsplit(url).netloc} is not trusted; set caBundle to its authority's."
            ) from error
        reason = str(error) or type(error).__name__
        raise StorageUnavailable(f"{urlsplit(url).netloc} did not serve {shown(url)}: {reason}") from error
    raise InputNotFound(f"{shown(url)} leads from one address to the next, more than {MAX_REDIRECTS} times.")


def _limit() -> int:
    said = os.environ.get(MAX_BYTES_VARIABLE) or str(MAX_BYTES)
    if not said.isdigit():
        raise InvalidSpec(f"{MAX_BYTES_VARIABLE} is {said!r}, which is no number of bytes; correct it in podEnv.")
    return int(said)


def _next(url: str, location: str) -> str:
    if not location.startswith(WEB_SCHEME):
        raise InputNotFound(
            f"{shown(url)} leads to {shown(location)}, which is not https:// and is not followed; take an address "
            "that stays with https://."
        )
    return location


def _check(status: int, url: str) -> None:
    if status == 200:
        return
    if status in (401, 403, 407):
        raise StorageDenied(
            f"{urlsplit(url).netloc} does not give {shown(url)} to everybody (HTTP {status}), and no credentials are "
            "sent; copy the file to s3://."
        )
    if status in (408, 425, 429) or status >= 500:
        raise StorageUnavailable(f"{urlsplit(url).netloc} did not serve {shown(url)} (HTTP {status}); try again later.")
    raise InputNotFound(f"{shown(url)} does not exist (HTTP {status}); check the address.")


def _save(answer: Any, path: Path, limit: int, url: str) -> str:
    """Write the body into a file, and return its sha256."""
    announced = answer.headers.get("content-length", "")
    digest, size = hashlib.sha256(), int(announced) if announced.isdigit() else 0
    if size <= limit:
        size = 0
        with path.open("wb") as file:
            for data in answer.iter_raw():
                size += len(data)
                if size > limit:
                    break
                digest.update(data)
                file.write(data)
    if size > limit:
        raise InvalidData(
            f"{shown(url)} is larger than {limit:,} bytes, which is the limit here; copy it to s3://, or have the "
            f"administrator raise {MAX_BYTES_VARIABLE} in podEnv."
        )
    return digest.hexdigest()


def _other_file(url: str, wanted: str, found: str, kind: str) -> str:
    page = kind.partition(";")[0].strip() == "text/html"
    advice = (
        "it is a web page: take the address of the file itself"
        if page
        else "check the address, or if the file may have changed, look at it and give its new sha256"
    )
    return f"{shown(url)} has the sha256 {found}, and the spec says {wanted}; {advice}."


def shown(url: str) -> str:
    """Return an address for people: without its query, which may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
