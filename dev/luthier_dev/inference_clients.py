"""The clients that others publish for the server's protocols, in a virtual environment of their own.

kserve and tritonclient need a protobuf that is older than the one of which the server's messages are made.
"""

from __future__ import annotations

from pathlib import Path

from luthier_dev import environments, versions


def ensure() -> Path:
    """Return the interpreter that has them; install them where they are not there."""
    wanted = [f"tritonclient[grpc,http]=={versions.TRITON_CLIENT}", f"kserve=={versions.KSERVE}", "huggingface-hub"]
    name = f"inference-clients-{versions.TRITON_CLIENT}-{versions.KSERVE}"
    return environments.ensure(name, "tritonclient and kserve", wanted, usually_s=20) / "bin" / "python"
