"""Credentials for the S3 adapter from one folder or set of variables, read each time a request is signed.

Nothing here falls back to another source: a Secret that lacks a key is an error, not a reason to ask the instance
metadata service.
"""

from __future__ import annotations

from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, ReadOnlyCredentials
from botocore.session import Session
from botocore.session import get_session as new_botocore_session

from luthier_artifacts.config import StorageConfig
from luthier_artifacts.errors import StorageDenied
from luthier_artifacts.keys import ACCESS_KEY, KEYS, SECRET_KEY, SESSION_TOKEN, read_folder, read_variables


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
    """Credentials that are read again for every signature: botocore asks `get_frozen_credentials` for each request."""

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        now = self.get_frozen_credentials()
        super().__init__(now.access_key or "", now.secret_key or "", now.token, method="luthier")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return _read(self._config)


def _read(config: StorageConfig) -> ReadOnlyCredentials:
    folder, prefix = config.credentials_dir, config.credentials_env or ""
    keys = read_folder(folder) if folder else read_variables({name: prefix + name for name in KEYS})
    for name in (ACCESS_KEY, SECRET_KEY):
        if name not in keys:
            what = f"file {folder / name} is not there" if folder else f"environment variable {prefix}{name} is not set"
            raise StorageDenied(f"The {what}; put the key {name} into the Secret.")
    return ReadOnlyCredentials(keys[ACCESS_KEY], keys[SECRET_KEY], keys.get(SESSION_TOKEN), None)
