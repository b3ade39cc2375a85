"""Signatures of versions: who vouches for the files that a manifest lists.

Owns the file model.sig beside a version's manifest, which is no part of the version: signing changes no digest. Its
format is that of OpenSSF Model Signing (https://model-signing.org, predicate https://model_signing/signature/v1.0): an
in-toto statement with the sha256 of every file, in a DSSE envelope, in a Sigstore bundle, signed with an ECDSA key. So
the `model_signing` command verifies what is signed here, and the other way round.

Not by that library itself, which hashes every file of a folder: a server downloads only the files that its engine
reads, and their hashes are checked against the manifest already. It would also bring Sigstore's and TUF's clients into
images that need one ECDSA operation.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Base64Bytes, Field, ValidationError

from luthier_api.base import ApiModel
from luthier_artifacts.errors import InvalidKey, SignatureError
from luthier_artifacts.manifest import MANIFEST_NAME, RESERVATION_NAME, SIGNATURE_NAME, Manifest

PublicKey = ec.EllipticCurvePublicKey

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
# Of the curves that Model Signing takes.
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_MAKE_ONE = "make one with `openssl ecparam -name prime256v1 -genkey -noout`."


class _Signature(ApiModel):
    sig: Base64Bytes


class _Envelope(ApiModel):
    payload: Base64Bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: list[_Signature] = Field(min_length=1)


class _Bundle(ApiModel):
    dsse_envelope: _Envelope


class _Resource(ApiModel):
    name: str
    algorithm: Literal["sha256"]
    digest: str


class _Predicate(ApiModel):
    resources: list[_Resource]


class _Statement(ApiModel):
    predicate_type: Literal["https://model_signing/signature/v1.0"]
    predicate: _Predicate


def sign(manifest: Manifest, private_key: bytes, password: bytes | None = None) -> bytes:
    """Return the text of model.sig for the files of a manifest.

    Args:
        manifest: Of the version; only its list of files is signed, not its metrics or lineage.
        private_key: PEM of an ECDSA key on the curve P-256, P-384 or P-521.
        password: Of the key, if it is encrypted.

    Raises:
        InvalidKey: if it is no such key, or the password is wrong.
    """
    key = _read_private_key(private_key, password)
    payload = json.dumps(_statement(manifest), indent=1).encode()
    signature = key.sign(_encoded(payload), ec.ECDSA(_hash_of(key.public_key())))
    bundle = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _hint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode()


def verify(manifest: Manifest, signature: bytes, trusted: Sequence[PublicKey], place: str) -> None:
    """Check that model.sig was made with one of the trusted keys, for exactly the files of a manifest.

    Args:
        manifest: What is about to be read; its files are checked against it later.
        signature: Bytes of model.sig, which may be damaged or hostile.
        trusted: From `read_public_keys`.
        place: URI of the version, for messages.

    Raises:
        SignatureError: if not.
    """
    try:
        envelope = _Bundle.model_validate_json(signature).dsse_envelope
        if not any(_made_with(key, each.sig, envelope.payload) for key in trusted for each in envelope.signatures):
            raise SignatureError(
                f"{place}/{SIGNATURE_NAME} was made with none of the keys that are trusted; sign the version with "
                "`luthier sign`, or trust the key that it was signed with."
            )
        resources = _Statement.model_validate_json(envelope.payload).predicate.resources
    except ValidationError:
        raise SignatureError(
            f"{place}/{SIGNATURE_NAME} is no signature in the format of OpenSSF Model Signing; sign the version with "
            "`luthier sign`."
        ) from None
    signed = sorted((each.name, each.digest) for each in resources)
    if signed != sorted((entry.path, entry.sha256) for entry in manifest.files):
        raise SignatureError(
            f"{place}/{SIGNATURE_NAME} is a signature of other files than the version has; do not use the version "
            "before you know who changed it."
        )


def read_public_keys(pem: str) -> list[PublicKey]:
    """Return the public keys in a PEM text; several, so that a new key is trusted beside the old one for a while.

    Raises:
        InvalidKey: if it holds none, or one that is not ECDSA on the curve P-256, P-384 or P-521.
    """
    blocks = _PUBLIC_KEY.findall(pem)
    if not blocks:
        raise InvalidKey("There is no public key in PEM (-----BEGIN PUBLIC KEY-----).")
    return [_read_public_key(block.encode()) for block in blocks]


def _read_public_key(pem: bytes) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey("A public key in PEM is damaged.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise InvalidKey("A public key is not ECDSA on the curve P-256, P-384 or P-521.")
    return key


def _read_private_key(pem: bytes, password: bytes | None) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError:
        wanted = "is encrypted, and no password was given" if password is None else "is not encrypted: give no password"
        raise InvalidKey(f"The private key {wanted}.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey(f"There is no private key in PEM, or its password is wrong; {_MAKE_ONE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise InvalidKey(f"The private key is not ECDSA on the curve P-256, P-384 or P-521; {_MAKE_ONE}")
    return key


def _statement(manifest: Manifest) -> dict[str, object]:
    root = hashlib.sha256(b"".join(bytes.fromhex(entry.sha256) for entry in manifest.files)).hexdigest()
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": f"{manifest.name}/{manifest.version}", "digest": {"sha256": root}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_NAME, MANIFEST_NAME, RESERVATION_NAME],
            },
            "resources": [
                {"name": entry.path, "algorithm": "sha256", "digest": entry.sha256} for entry in manifest.files
            ],
        },
    }


def _encoded(payload: bytes) -> bytes:
    """Return what is signed (DSSE protocol, "PAE")."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _made_with(key: PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, _encoded(payload), ec.ECDSA(_hash_of(key)))
    except InvalidSignature:
        return False
    return True


def _hash_of(key: PublicKey) -> hashes.HashAlgorithm:
    return _HASHES[key.curve.name]()


def _hint(key: PublicKey) -> str:
    """Return by what Model Signing finds the key: the sha256 of its PEM."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()
