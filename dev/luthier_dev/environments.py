"""Virtual environments under $LUTHIER_HOME for programs whose packages do not go with ours.

Owns making one, once for each name. What is in it, and what is run from it, is the caller's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from luthier_dev import steps
from luthier_dev.locks import locked
from luthier_dev.paths import layout


def ensure(name: str, title: str, requirements: Sequence[str], *, usually_s: float) -> Path:
    """Return the folder of a virtual environment; make it where it is not there.

    Args:
        name: of the folder; other requirements need another name.
        title: what it holds, for the step that is shown.
        requirements: arguments of `pip install`.
        usually_s: seconds that the installation takes.

    Raises:
        CommandFailed: the package index did not give the packages.
    """
    folder = layout().home / name
    with locked(name, f"installing {title}"):
        done = folder / ".done"
        if not done.exists():
            with steps.step(f"Install {title}", usually_s=usually_s):
                shutil.rmtree(folder, ignore_errors=True)
                _install(folder, requirements)
            done.touch()
    return folder


def _install(folder: Path, requirements: Sequence[str]) -> None:
    # The cache of bootstrap.sh, so that what the checkout has too is linked and not copied.
    cache = {"UV_CACHE_DIR": str(layout().home / "uv")}
    python = str(folder / "bin" / "python")
    uv = layout().home / "tools" / "bin" / "uv"
    found = str(uv) if uv.exists() else shutil.which("uv")
    if found:
        steps.run_logged([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        steps.run_logged([found, "pip", "install", "--system-certs", "--python", python, *requirements], env=cache)
    else:
        steps.run_logged([sys.executable, "-m", "venv", str(folder)])
        steps.run_logged([python, "-m", "pip", "install", *requirements])
