"""Credentials for the S3 adapter from the environment variables of one role, read each time a request is signed.

Nothing here falls back to another source: a Secret that lacks a key is an error, not a reason to ask the instance
metadata service.
"""

from __future__ import annotations

import os

from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, ReadOnlyCredentials
from botocore.session import Session
from botocore.session import get_session as new_botocore_session

from luthier_artifacts.config import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, StorageConfig
from luthier_artifacts.errors import StorageDenied


def botocore_session(config: StorageConfig) -> Session:
    """Return a session that signs with the configured credentials only, or with boto3's chain if none are named."""
    session = new_botocore_session()
    if config.credentials_env is not None:
        resolver = CredentialResolver([_NamedProvider(session, config.credentials_env)])
        session.register_component("credential_provider", resolver)
    return session


class _NamedProvider(CredentialProvider):
    METHOD = "luthier"

    def __init__(self, session: Session, prefix: str) -> None:
        super().__init__(session)
        self._prefix = prefix

    def load(self) -> Credentials:
        return _NamedCredentials(self._prefix)


class _NamedCredentials(Credentials):
    """Credentials that are read again for every signature: botocore asks `get_frozen_credentials` for each request."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        now = self.get_frozen_credentials()
        super().__init__(now.access_key or "", now.secret_key or "", now.token, method="luthier")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return _from_environment(self._prefix)


def _from_environment(prefix: str) -> ReadOnlyCredentials:
    access_key, secret_key, token = (
        os.environ.get(prefix + name, "").strip() or None for name in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)
    )
    if access_key is None or secret_key is None:
        missing = SECRET_KEY if access_key else ACCESS_KEY
        raise StorageDenied(
            f"The environment variable {prefix}{missing} is not set; put the key {missing} into the Secret."
        )
    return ReadOnlyCredentials(access_key, secret_key, token, None)
