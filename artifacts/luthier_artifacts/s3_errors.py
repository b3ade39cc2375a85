"""One table from what botocore raises to the errors of this package, each with a sentence that says what to do."""

from __future__ import annotations

from dataclasses import dataclass

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from luthier_artifacts.errors import (
    BucketNotFound,
    ConditionalWritesUnsupported,
    CredentialsExpired,
    IntegrityError,
    InvalidUri,
    ObjectNotFound,
    PreconditionFailed,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)


@dataclass(frozen=True)
class Target:
    """What was tried, for the message."""

    action: str
    bucket: str
    key: str
    endpoint: str | None
    accepted: bool = False
    """Whether storage has accepted the keys in use before: what it refuses now was replaced or has run out."""

    @property
    def server(self) -> str:
        """The endpoint in words."""
        return self.endpoint or "AWS"

    @property
    def object_uri(self) -> str:
        """The object, or the bucket when there is no key."""
        return f"s3://{self.bucket}/{self.key}".rstrip("/")


_UNKNOWN_KEY = {"InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"}
_WRONG_SECRET = {"SignatureDoesNotMatch"}
# AWS (S3 and STS), then MinIO, then Alibaba Cloud.
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired"}
_EXPIRED |= {"InvalidTokenId", "SecurityTokenExpired", "InvalidSecurityToken"}
_SKEWED = {"RequestTimeTooSkewed"}
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_NO_BUCKET = {"NoSuchBucket"}
_NO_KEY = {"NoSuchKey", "NoSuchVersion"}
_PRECONDITION = {"PreconditionFailed"}
_BUSY = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "TooManyRequests"}


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: ClientError) -> bool:
    """Whether a HEAD answered 404, which does not say what is missing."""
    return _code(error) in ("404", "NotFound")


def is_unexplained(error: ClientError) -> bool:
    """Whether a HEAD was refused, which does not say why: expired tokens are answered by 400."""
    return _code(error) in ("400", "403")


def is_conflict(error: BaseException) -> bool:
    """Whether another conditional write of the same key was in flight."""
    return isinstance(error, ClientError) and _code(error) == "ConditionalRequestConflict"


def to_storage_error(error: ClientError | BotoCoreError, target: Target) -> StorageError:
    """Return our error for botocore's; the message names the place, the cause and what to do."""
    if isinstance(error, ClientError):
        return _denied(error, target) or _from_answer(error, target)
    return _from_client(error, target)


def _denied(error: ClientError, target: Target) -> StorageError | None:
    code, server, uri = _code(error), target.server, target.object_uri
    if code in _EXPIRED:
        return CredentialsExpired(f"The keys used for {uri} have expired ({code}); put new ones into the Secret.")
    if code in _UNKNOWN_KEY | _WRONG_SECRET and target.accepted:
        return CredentialsExpired(
            f"{server} does not accept the keys used for {uri} any more ({code}); put valid ones into the Secret."
        )
    if code in _UNKNOWN_KEY:
        return StorageDenied(f"{server} does not know the access key used for {uri}; correct AWS_ACCESS_KEY_ID.")
    if code in _WRONG_SECRET:
        return StorageDenied(f"{server} refused the signature for {uri}; correct AWS_SECRET_ACCESS_KEY.")
    if code in _SKEWED:
        return StorageDenied(f"This machine's clock differs too much from that of {server}; correct the clock.")
    if code in ("AccessDenied", "Forbidden", "AllAccessDisabled") or _status(error) in (401, 403):
        return StorageDenied(
            f"The credentials may not {target.action} {uri} at {server}; grant that, or check that the path is right."
        )
    return None


def _from_answer(error: ClientError, target: Target) -> StorageError:
    code, status, server, uri = _code(error), _status(error), target.server, target.object_uri
    if code in _NO_BUCKET or (is_missing(error) and error.operation_name == "HeadBucket"):
        return BucketNotFound(
            f"The bucket {target.bucket} does not exist at {server}; create it or correct the bucket's name."
        )
    if code in _NO_KEY or is_missing(error):
        return ObjectNotFound(f"{uri} does not exist; check the path.")
    if code in _PRECONDITION or status == 412:
        return PreconditionFailed(f"{uri} was written by somebody else first.")
    if is_conflict(error):
        return StorageUnavailable(f"{uri} is being written by too many at once; try again.")
    if code in _WRONG_REGION or status == 301:
        return StorageError(f"The bucket {target.bucket} is in another region than the one configured; set region.")
    if code == "NotImplemented" or status == 501:
        return ConditionalWritesUnsupported(
            f"{server} does not implement a request that Luthier needs to {target.action} {uri}; "
            "use storage that honours If-None-Match and If-Match."
        )
    if code in _BUSY or status >= 500 or status == 429:
        return StorageUnavailable(f"{server} could not {target.action} {uri} ({code or status}); try again later.")
    if code == "InvalidRange" or status == 416:
        return IntegrityError(f"{uri} is shorter than the part that was asked for; it was cut short or replaced.")
    return StorageError(f"{server} refused to {target.action} {uri}: {code or status}.")


def _from_client(error: BotoCoreError, target: Target) -> StorageError:
    server, uri = target.server, target.object_uri
    if isinstance(error, boto.CredentialRetrievalError) and target.accepted:
        return CredentialsExpired(f"The keys used for {uri} have expired and could not be renewed: {_line(error)}")
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return StorageDenied(f"There are no credentials to {target.action} {uri}; name a Secret that holds them.")
    if isinstance(error, boto.SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return StorageError(f"The certificate of {server} is not trusted; set caBundle to its authority's.")
        return StorageError(f"{server} does not answer in TLS; check the endpoint, or write http:// if it has none.")
    if isinstance(
        error,
        boto.HTTPClientError | boto.ConnectionError | boto.IncompleteReadError | boto.ReadTimeoutError,
    ):
        return StorageUnavailable(
            f"{server} did not answer ({type(error).__name__}); check the endpoint and try again."
        )
    if isinstance(error, boto.ParamValidationError | boto.InvalidEndpointConfigurationError):
        return InvalidUri(f"{uri} is not a place in S3: {_line(error)}")
    return StorageError(f"The request to {target.action} {uri} at {server} failed: {_line(error)}")


def _line(error: BotoCoreError) -> str:
    return " ".join(str(error).split())
