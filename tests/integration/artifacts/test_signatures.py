"""Who vouches for a version: a signature beside it, which changes nothing of it, and without which it is not loaded."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from luthier_artifacts import (
    IntegrityError,
    InvalidKey,
    InvalidUri,
    Manifest,
    Metadata,
    ObjectNotFound,
    PublishedVersion,
    Registry,
    SignatureError,
    download_version,
    open_store,
)
from luthier_artifacts.manifest import SIGNATURE_NAME
from luthier_artifacts.signatures import read_public_keys, sign
from luthier_artifacts.store import ObjectStore
from luthier_dev import model_signing
from support.s3 import Storage
from support.signing_keys import KeyPair

RUN = "cd" * 32
OURS, THEIRS = KeyPair(), KeyPair()


@pytest.fixture
def store(storage: Storage) -> ObjectStore:
    return open_store(storage.uri, storage.config)


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store, "m")


@pytest.fixture
def published(registry: Registry, model: Path) -> PublishedVersion:
    return registry.publish(model, RUN, Metadata())


class Reader:
    """Whoever loads the version, trusting some keys, through the cache of a node or without one."""

    def __init__(self, storage: Storage, version: PublishedVersion, folder: Path) -> None:
        self._storage, self._version, self._folder = storage, version, folder
        self._times = 0

    def load(self, *trusted: KeyPair, cache: Path | None = None) -> Manifest:
        self._times += 1
        keys = "".join(pair.public for pair in trusted)
        into = self._folder / f"into-{self._times}"
        uri, digest = self._version.uri, self._version.digest
        return download_version(uri, into, self._storage.config, cache=cache, digest=digest, trusted_keys=keys)


@pytest.fixture
def reader(storage: Storage, published: PublishedVersion, tmp_path: Path) -> Reader:
    return Reader(storage, published, tmp_path)


def _key_of_signature(published: PublishedVersion) -> str:
    return f"m/versions/{published.version}/{SIGNATURE_NAME}"


def test_a_version_is_loaded_once_it_is_signed_and_is_the_same_version(
    registry: Registry, published: PublishedVersion, reader: Reader
) -> None:
    with pytest.raises(SignatureError, match=r"is not signed: it has no model\.sig; sign the version"):
        reader.load(OURS)
    assert registry.sign(published.version, OURS.private).digest == published.digest
    assert reader.load(OURS) == published.manifest == registry.get_manifest(published.version)
    assert registry.list_versions() == [published.version]


def test_another_key_does_not_do_and_one_of_several_does(
    registry: Registry, published: PublishedVersion, reader: Reader
) -> None:
    registry.sign(published.version, THEIRS.private)
    with pytest.raises(SignatureError, match="made with none of the keys that are trusted"):
        reader.load(OURS)
    reader.load(OURS, THEIRS)
    registry.sign(published.version, OURS.private)
    reader.load(OURS)


def test_the_signature_of_other_files_does_not_do(
    registry: Registry, store: ObjectStore, published: PublishedVersion, reader: Reader, model: Path
) -> None:
    (model / "config.json").write_text('{"hidden_size": 2}')
    other = registry.publish(model, "ab" * 32, Metadata())
    registry.sign(other.version, OURS.private)
    data, _ = store.read(_key_of_signature(other))
    store.write(_key_of_signature(published), data)
    with pytest.raises(SignatureError, match="is a signature of other files than the version has"):
        reader.load(OURS)


def _shorter(bundle: dict[str, Any]) -> None:
    """Take a file out of what is signed, as somebody would who wants to exchange it."""
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"].pop()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


def _unsigned(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["signatures"] = []


def _of_another_kind(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payloadType"] = "text/plain"


@pytest.mark.parametrize("forge", [_shorter, _unsigned, _of_another_kind])
def test_what_is_signed_cannot_be_edited(
    registry: Registry, store: ObjectStore, published: PublishedVersion, reader: Reader, forge: Any
) -> None:
    registry.sign(published.version, OURS.private)
    bundle = json.loads(store.read(_key_of_signature(published))[0])
    forge(bundle)
    store.write(_key_of_signature(published), json.dumps(bundle).encode())
    with pytest.raises(SignatureError):
        reader.load(OURS)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"null", b"{}", b'{"dsseEnvelope": {"payload": "!"}}'])
def test_what_is_no_signature_is_refused_in_one_sentence(
    store: ObjectStore, published: PublishedVersion, reader: Reader, data: bytes
) -> None:
    store.write(_key_of_signature(published), data)
    with pytest.raises(SignatureError, match="is no signature in the format of OpenSSF Model Signing") as error:
        reader.load(OURS)
    assert published.uri in str(error.value) and "\n" not in str(error.value)


def test_a_node_that_has_a_signed_version_loads_it_without_storage_but_not_with_other_keys(
    registry: Registry, store: ObjectStore, published: PublishedVersion, reader: Reader, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    registry.sign(published.version, OURS.private)
    reader.load(OURS, cache=cache)
    store.delete([info.key for info in list(store.list("m/versions"))])
    reader.load(OURS, cache=cache)
    with pytest.raises(SignatureError):
        reader.load(THEIRS, cache=cache)


def test_a_version_that_is_signed_anew_is_loaded_also_where_the_old_signature_is_kept(
    registry: Registry, published: PublishedVersion, reader: Reader, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    registry.sign(published.version, OURS.private)
    reader.load(OURS, cache=cache)
    registry.sign(published.version, THEIRS.private)
    reader.load(THEIRS, cache=cache)


def test_a_version_that_is_not_the_one_that_was_meant_is_not_signed(
    registry: Registry, published: PublishedVersion, reader: Reader
) -> None:
    with pytest.raises(IntegrityError, match="it was replaced, and is not signed"):
        registry.sign(published.version, OURS.private, digest=f"sha256:{'0' * 64}")
    with pytest.raises(SignatureError, match="is not signed"):
        reader.load(OURS)
    registry.sign(published.version, OURS.private, digest=published.digest)


def test_a_version_that_is_removed_takes_its_signature_along(
    registry: Registry, store: ObjectStore, published: PublishedVersion
) -> None:
    registry.sign(published.version, OURS.private)
    registry.delete_version(published.version)
    assert not [info.key for info in store.list("m/versions") if info.key.endswith(SIGNATURE_NAME)]
    with pytest.raises(ObjectNotFound):
        registry.sign(published.version, OURS.private)


def test_no_file_of_a_version_may_have_the_signature_s_name(registry: Registry, model: Path) -> None:
    (model / SIGNATURE_NAME).write_text("mine")
    with pytest.raises(InvalidUri, match=r"model\.sig' is the registry's own"):
        registry.publish(model, RUN, Metadata())


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_keys_may_be_longer_and_have_a_password(
    registry: Registry, published: PublishedVersion, reader: Reader, curve: ec.EllipticCurve
) -> None:
    pair = KeyPair(curve, password=b"secret")
    registry.sign(published.version, pair.private, b"secret")
    reader.load(pair)


RSA = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL\n-----END PUBLIC KEY-----"


@pytest.mark.parametrize(
    ("private", "password", "sentence"),
    [
        (b"", None, "There is no private key in PEM, or its password is wrong; make one with"),
        (OURS.private, b"secret", "is not encrypted: give no password"),
        (KeyPair(password=b"secret").private, None, "is encrypted, and no password was given"),
        (KeyPair(password=b"secret").private, b"other", "or its password is wrong"),
        (KeyPair(ec.SECP256K1()).private, None, "not ECDSA on the curve P-256, P-384 or P-521; make one with"),
    ],
    # Without the keys, which are others in each process: all processes must find the same tests.
    ids=["none", "a password too many", "no password", "another password", "another curve"],
)
@pytest.mark.unit
def test_a_key_that_cannot_sign_is_refused(model: Path, private: bytes, password: bytes | None, sentence: str) -> None:
    registry = Registry(open_store(f"file://{model.parent}/store"), "m")
    version = registry.publish(model, RUN, Metadata())
    with pytest.raises(InvalidKey, match=sentence):
        registry.sign(version.version, private, password)


@pytest.mark.parametrize(
    "pem",
    ["", "hello", OURS.private.decode(), RSA, KeyPair(ec.SECP256K1()).public],
    ids=["empty", "a text", "a private key", "a damaged one", "another curve"],
)
@pytest.mark.unit
def test_a_text_without_a_public_key_that_is_used_is_refused(pem: str) -> None:
    with pytest.raises(InvalidKey):
        read_public_keys(pem)


class Tool:
    """The `model_signing` command, on a folder as any S3 tool copies it: with manifest and reservation."""

    def __init__(self, folder: Path, pair: KeyPair) -> None:
        self._program = model_signing.ensure()
        self._folder, self._keys = folder, folder.parent
        (self._keys / "private.pem").write_bytes(pair.private)
        (self._keys / "public.pem").write_text(pair.public)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        signature = ("--signature", str(self._folder / SIGNATURE_NAME))
        command: Sequence[str] = (str(self._program), words[0], "key", str(self._folder), *signature, *words[1:])
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def verify(self) -> subprocess.CompletedProcess[str]:
        return self.run("verify", "--public_key", str(self._keys / "public.pem"))

    def sign(self) -> subprocess.CompletedProcess[str]:
        return self.run("sign", "--private_key", str(self._keys / "private.pem"))


@pytest.mark.integration
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_the_model_signing_command_verifies_what_we_sign_and_finds_a_changed_file(
    tmp_path: Path, model: Path, curve: ec.EllipticCurve
) -> None:
    pair = KeyPair(curve)
    registry = Registry(open_store(f"file://{tmp_path}/store"), "m")
    version = registry.publish(model, RUN, Metadata())
    registry.sign(version.version, pair.private)
    copy = tmp_path / "copy" / "version"
    shutil.copytree(tmp_path / "store" / "m" / "versions" / version.version, copy)
    tool = Tool(copy, pair)
    assert tool.verify().returncode == 0, tool.verify()
    (copy / "config.json").write_text("{ }")
    answer = tool.verify()
    assert answer.returncode != 0 and "config.json" in answer.stderr + answer.stdout


@pytest.mark.integration
def test_what_the_model_signing_command_signs_is_verified(tmp_path: Path, model: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    version = Registry(store, "m").publish(model, RUN, Metadata())
    tool = Tool(model, OURS)
    assert tool.sign().returncode == 0
    store.write(_key_of_signature(version), (model / SIGNATURE_NAME).read_bytes())
    download_version(version.uri, tmp_path / "into", digest=version.digest, trusted_keys=OURS.public)


@pytest.mark.unit
def test_what_is_signed_is_the_list_of_files(model: Path, tmp_path: Path) -> None:
    manifest = Registry(open_store(f"file://{tmp_path}/store"), "m").publish(model, RUN, Metadata()).manifest
    bundle = json.loads(sign(manifest, OURS.private))
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    signed = {each["name"]: each["digest"] for each in statement["predicate"]["resources"]}
    assert signed == {entry.path: entry.sha256 for entry in manifest.files}
