"""Credentials for the S3 adapter that are read where the user put them, each time a request is signed.

botocore asks `get_frozen_credentials` for every request, so a rotated Secret is used from the next request on, with
no thread and no clock. Nothing here falls back to another source: a Secret that lacks a key is an error, not a reason
to ask the instance metadata service.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, ReadOnlyCredentials
from botocore.session import Session
from botocore.session import get_session as new_botocore_session

from luthier_artifacts.config import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, StorageConfig
from luthier_artifacts.errors import StorageDenied


def botocore_session(config: StorageConfig) -> Session:
    """Return a session that signs with the configured credentials only, or with boto3's chain if none are named."""
    session = new_botocore_session()
    if config.credentials_dir is not None or config.credentials_env is not None:
        resolver = CredentialResolver([_NamedProvider(session, config)])
        session.register_component("credential_provider", resolver)
    return session


class _NamedProvider(CredentialProvider):
    METHOD = "luthier"

    def __init__(self, session: Session, config: StorageConfig) -> None:
        super().__init__(session)
        self._config = config

    def load(self) -> Credentials:
        return _NamedCredentials(self._config)


class _NamedCredentials(Credentials):
    """Credentials that are read again for every signature."""

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        now = self.get_frozen_credentials()
        super().__init__(now.access_key or "", now.secret_key or "", now.token, method="luthier")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        if self._config.credentials_dir is not None:
            return _from_folder(self._config.credentials_dir)
        return _from_environment(self._config.credentials_env or "")


def _from_folder(folder: Path) -> ReadOnlyCredentials:
    # The kubelet swaps the link `..data` in one step; resolving it once keeps both halves of a key from one Secret.
    swapped = folder / "..data"
    current = swapped.resolve() if swapped.exists() else folder

    def value(name: str) -> str | None:
        try:
            return (current / name).read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageDenied(f"The credential file {folder / name} cannot be read: {error.strerror}.") from error

    def missing(name: str) -> str:
        return f"The file {folder / name} is missing or empty; put the key {name} into the Secret."

    return _frozen(value, missing)


def _from_environment(prefix: str) -> ReadOnlyCredentials:
    def value(name: str) -> str | None:
        return os.environ.get(prefix + name, "").strip() or None

    def missing(name: str) -> str:
        return f"The environment variable {prefix}{name} is not set; put the key {name} into the Secret."

    return _frozen(value, missing)


def _frozen(value: Callable[[str], str | None], missing: Callable[[str], str]) -> ReadOnlyCredentials:
    access_key, secret_key = value(ACCESS_KEY), value(SECRET_KEY)
    if access_key is None or secret_key is None:
        raise StorageDenied(missing(SECRET_KEY if access_key else ACCESS_KEY))
    return ReadOnlyCredentials(access_key, secret_key, value(SESSION_TOKEN), None)
