"""Debian packages that the workbench needs, and the check that this machine can be used at all.

Owns which packages are needed for what; installs them with apt-get. Programs that Debian lacks or has too old are the
binaries module's.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from luthier_dev import steps
from luthier_dev.errors import MachineError

_ARCHITECTURES = {"x86_64", "aarch64"}

NODE_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
}
BROWSER_PACKAGES = {"chromium": "chromium"}
IMAGE_PACKAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}


def check_machine() -> None:
    """Raise MachineError unless this is a Linux machine of a known kind and we are root."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        raise MachineError(
            f"Luthier's own one-node cluster needs Linux on x86_64 or arm64 and this is {platform.platform()}; "
            "start Docker, and kind is used instead."
        )
    if os.geteuid() != 0:
        raise MachineError(
            "Setting up a one-node cluster needs root: run the same command with sudo, start Docker so that kind "
            "is used, or set LUTHIER_USE_CLUSTER=1 to use the cluster of your KUBECONFIG."
        )


def ensure_packages(wanted: dict[str, str]) -> None:
    """Install the Debian packages whose programs are missing.

    Args:
        wanted: package to install by the program, or the absolute path, that shows that it is there.
    """
    missing = sorted({package for program, package in wanted.items() if not _is_there(program)})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise MachineError(
            f"This machine lacks {', '.join(missing)} and has no apt-get: install them by your own package "
            "manager, or start Docker, and kind is used instead."
        )
    with steps.step(f"Install {', '.join(missing)}", usually_s=30):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        steps.run_logged(["apt-get", "update", "-q"], env=quiet)
        steps.run_logged(["apt-get", "install", "-yq", "--no-install-recommends", *missing], env=quiet)


def _is_there(program: str) -> bool:
    if program.startswith("/"):
        return Path(program).exists()
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None
