"""Helm on the release that the end-to-end tests run on."""

from __future__ import annotations

import os
import subprocess

from luthier_dev import binaries
from luthier_dev.charts import CHART
from luthier_dev.setup import RELEASE, SYSTEM_NAMESPACE
from support.e2e.stories import Site


def helm(site: Site, *arguments: str) -> str:
    """Run helm in the release's namespace; return what it printed."""
    command = [str(binaries.path("helm")), *arguments, "--namespace", SYSTEM_NAMESPACE]
    done = subprocess.run(
        command, env={**os.environ, "KUBECONFIG": str(site.kubeconfig)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def upgrade(site: Site, *values: str) -> None:
    """Upgrade the release with more values, as `--set-json` takes them, and wait for the operator."""
    flags = [word for value in values for word in ("--set-json", value)]
    helm(site, "upgrade", RELEASE, str(CHART), "--reset-then-reuse-values", "--wait", *flags)
