"""Everything that can go wrong with storage, mapped once at the adapters and meant to be shown to people.

    StorageError
    ├── InvalidUri                    the name of a place cannot be right
    ├── StorageDenied                 the credentials are missing, wrong or not allowed to do this
    ├── CredentialsExpired            they were right once; with others the same call may succeed (`retryable`)
    ├── BucketNotFound
    ├── ObjectNotFound                also: a version or a checkpoint without a valid manifest
    ├── PreconditionFailed            somebody else wrote first
    ├── StorageUnavailable            no answer, or an answer of 5xx; trying again may help (`retryable`)
    ├── IntegrityError                bytes differ from what a manifest promises
    │   └── SignatureError            nobody who is trusted has signed the version
    ├── InvalidKey                    a key that cannot sign or verify
    └── ConditionalWritesUnsupported  the server accepts If-None-Match or If-Match and ignores it

A message is one sentence that names the place and what to do; it never holds a credential.
"""

from __future__ import annotations

from typing import ClassVar


class StorageError(Exception):
    """Base of all errors of this package."""

    retryable: ClassVar[bool] = False


class InvalidUri(StorageError):
    """A URI, key or file name that is refused before storage is asked."""


class StorageDenied(StorageError):
    """Storage does not know the credentials, or they may not do this."""


class CredentialsExpired(StorageError):
    """The credentials were valid and are not any more; whoever issues them has to renew them."""

    retryable: ClassVar[bool] = True


class BucketNotFound(StorageError):
    """The bucket does not exist at this endpoint."""


class ObjectNotFound(StorageError):
    """The object, or the version that it stands for, does not exist."""


class PreconditionFailed(StorageError):
    """A conditional write lost: the object exists already, or is no longer the one that was read."""


class StorageUnavailable(StorageError):
    """Storage did not answer, or could not; the same call may succeed later."""

    retryable: ClassVar[bool] = True


class IntegrityError(StorageError):
    """Bytes, sizes or names differ from what a manifest promises."""


class SignatureError(IntegrityError):
    """A version is not signed, or not by a key that is trusted, or the signature is of other files."""


class InvalidKey(StorageError):
    """A key in PEM that cannot be read, or is of a kind that is not used."""


class ConditionalWritesUnsupported(StorageError):
    """The storage server does not honour conditional writes, so two writers could overwrite each other."""
