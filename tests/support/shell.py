"""Shell commands as a reader of the documentation types them, with the `luthier` of this checkout and no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(command: str, folder: Path) -> str:
    """Return what commands print in a folder, where `luthier` is the command of this checkout."""
    program = folder / "bin" / "luthier"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore -m luthier "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(folder / "none"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
