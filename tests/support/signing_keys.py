"""Keys for tests that sign versions: made anew each time, and never stored in the repository."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


class KeyPair:
    """An ECDSA key pair in PEM, as `openssl ecparam -genkey` makes one."""

    def __init__(self, curve: ec.EllipticCurve | None = None, password: bytes | None = None) -> None:
        key = ec.generate_private_key(curve or ec.SECP256R1())
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        self.private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public = public.decode()
