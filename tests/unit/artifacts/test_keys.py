"""The keys of a role are those of its mounted Secret as it is now, or of environment variables."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError

from luthier_api.documents import CREDENTIALS_VARIABLE, Access
from luthier_artifacts import CredentialsExpired, StorageConfig, StorageDenied, read_keys
from luthier_artifacts.credentials import botocore_session
from luthier_artifacts.keys import read_folder
from luthier_artifacts.s3_errors import Target, to_storage_error
from support.temporary_keys import MountedSecret, temporary

pytestmark = pytest.mark.unit

ACCESS = Access(credentials="output")


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MountedSecret:
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(tmp_path))
    return MountedSecret(tmp_path / "output", **temporary("first"))


def test_a_secret_that_changes_is_read_anew_for_the_next_signature(secret: MountedSecret) -> None:
    credentials = botocore_session(StorageConfig.from_access(ACCESS)).get_credentials()
    assert credentials and credentials.get_frozen_credentials().token == "first"
    secret.replace(AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="static\n")
    assert tuple(credentials.get_frozen_credentials())[:3] == ("AKIA", "static", None)


def test_keys_are_never_mixed_while_the_kubelet_replaces_them(tmp_path: Path) -> None:
    names = [f"KEY_{number}" for number in range(6)]
    secret, stop = MountedSecret(tmp_path / "keys", **dict.fromkeys(names, "0")), threading.Event()

    def rotate() -> None:
        version = 0
        while not stop.wait(0.0005):
            version += 1
            secret.replace(**dict.fromkeys(names, str(version)))

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        found = [read_folder(secret.folder) for _ in range(400)]
    finally:
        stop.set()
        thread.join()
    assert all(list(keys) and set(keys) == set(names) and len(set(keys.values())) == 1 for keys in found)
    assert len({keys["KEY_0"] for keys in found}) > 1


def test_the_mounted_secret_goes_before_variables_and_variables_serve_where_none_is_mounted(
    secret: MountedSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("OUTPUT", "DATASET"):
        monkeypatch.setenv(f"LUTHIER_{role}_AWS_ACCESS_KEY_ID", f"of-{role}")
    assert read_keys("output") == temporary("first")
    assert read_keys("dataset") == {"AWS_ACCESS_KEY_ID": "of-DATASET"}
    dataset = StorageConfig.from_access(Access(credentials="dataset"))
    assert (dataset.credentials_dir, dataset.credentials_env) == (None, "LUTHIER_DATASET_")
    assert StorageConfig.from_access(Access()) == StorageConfig()


def test_a_mounted_secret_without_a_key_is_denied_and_the_key_is_named(secret: MountedSecret) -> None:
    secret.replace(AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY=" ")
    with pytest.raises(StorageDenied, match="AWS_SECRET_ACCESS_KEY is not there; put the key AWS_SECRET_ACCESS_KEY"):
        botocore_session(StorageConfig.from_access(ACCESS)).get_credentials()


@pytest.mark.parametrize(
    ("code", "accepted", "kind"),
    [
        ("ExpiredToken", False, CredentialsExpired),
        ("ExpiredTokenException", False, CredentialsExpired),
        ("InvalidToken", False, CredentialsExpired),
        ("InvalidTokenId", False, CredentialsExpired),
        ("TokenRefreshRequired", False, CredentialsExpired),
        ("RequestExpired", False, CredentialsExpired),
        ("SecurityTokenExpired", False, CredentialsExpired),
        # A key that never was right is a mistake; one that was has been replaced.
        ("InvalidAccessKeyId", False, StorageDenied),
        ("InvalidAccessKeyId", True, CredentialsExpired),
        ("SignatureDoesNotMatch", False, StorageDenied),
        ("SignatureDoesNotMatch", True, CredentialsExpired),
        ("AccessDenied", True, StorageDenied),
    ],
)
def test_expired_is_not_denied(code: str, accepted: bool, kind: type[Exception]) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    found = to_storage_error(ClientError(answer, "PutObject"), Target("write", "models", "x", None, accepted))  # type: ignore[arg-type]
    assert type(found) is kind and "s3://models/x" in str(found)


def test_a_pod_identity_that_cannot_be_renewed_has_expired_and_one_that_never_was_is_missing() -> None:
    error = CredentialRetrievalError(provider="iam-role", error_msg="no answer")
    kinds = [type(to_storage_error(error, Target("read", "models", "x", None, known))) for known in (True, False)]
    assert kinds == [CredentialsExpired, StorageDenied]
