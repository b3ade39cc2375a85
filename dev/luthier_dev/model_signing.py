"""The command of OpenSSF Model Signing, in a virtual environment of its own, with which tests verify our signatures.

It brings Sigstore's and TUF's clients, which nothing of ours needs.
"""

from __future__ import annotations

from pathlib import Path

from luthier_dev import environments, versions


def ensure() -> Path:
    """Return the program; install it where it is not there."""
    # It imports OpenSSL, and Sigstore no longer brings that.
    wanted = [f"model-signing=={versions.MODEL_SIGNING}", "pyopenssl"]
    name = f"model-signing-{versions.MODEL_SIGNING}"
    return environments.ensure(name, "model-signing", wanted, usually_s=15) / "bin" / "model_signing"
