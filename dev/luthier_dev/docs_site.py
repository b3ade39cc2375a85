"""The documentation as a site, built by MkDocs.

Owns building it and showing it. MkDocs and its theme lie in a virtual environment of their own under $LUTHIER_HOME, of
the releases and hashes in dev/docs.txt. What is in the site is the work of mkdocs.yml and dev/mkdocs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from luthier_dev import environments, steps
from luthier_dev.paths import REPOSITORY, layout

_CONFIGURATION = REPOSITORY / "mkdocs.yml"
_REQUIREMENTS = REPOSITORY / "dev" / "docs.txt"
# The theme's makers advertise in the output of a build.
_ENVIRONMENT = {"NO_MKDOCS_2_WARNING": "true"}


def ensure() -> Path:
    """Return the virtual environment that holds MkDocs; install it where it is not there."""
    release = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:8]
    wanted = ["--require-hashes", "-r", str(_REQUIREMENTS)]
    return environments.ensure(f"docs-{release}", "MkDocs", wanted, usually_s=10)


def build(folder: Path | None = None) -> Path:
    """Build the site, and return its folder.

    Args:
        folder: where it goes; by default $LUTHIER_HOME/site.

    Raises:
        CommandFailed: a link or a page is missing, or MkDocs cannot be installed.
    """
    site = folder or layout().home / "site"
    command = [str(_program()), "build", "--strict", "--config-file", str(_CONFIGURATION)]
    steps.run_logged([*command, "--site-dir", str(site)], env=_ENVIRONMENT)
    return site


def serve() -> None:
    """Show the site on loopback, and build it again at each change, until Ctrl-C."""
    command = [str(_program()), "serve", "--config-file", str(_CONFIGURATION)]
    subprocess.run(command, env=os.environ | _ENVIRONMENT, check=False)


def _program() -> Path:
    return ensure() / "bin" / "mkdocs"
