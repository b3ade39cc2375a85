"""Removes what the workbench made: processes, mounts, network, routes and images.

Owns the order of removal, and prints what is kept. Ends only processes that carry our mark or run in our
control group.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from luthier_dev import binaries, buildah, controlplane, docker, mounts, node, processes, steps
from luthier_dev.locks import locked
from luthier_dev.paths import layout
from luthier_dev.providers import SCOPE as FORWARDS
from luthier_dev.providers import KindCluster


def clean() -> None:
    """Remove every process, mount, network namespace, route and image; keep programs and downloads."""
    where = layout()
    with locked("node", "starting or stopping the cluster"), steps.step("Remove the cluster", usually_s=3):
        for scope in (FORWARDS, controlplane.SCOPE):
            processes.end(processes.owned(scope))
        node.stop()
        controlplane.remove_abandoned()
    if docker.is_running() and binaries.path("kind").exists():
        KindCluster().down()
    with steps.step("Remove all images", usually_s=10):
        buildah.remove_all()
        mounts.remove(where.containerd)
    for folder in (where.build, where.logs, where.controlplanes):
        if folder.exists():
            shutil.rmtree(folder)
    _say_what_stays(where.home)


def _say_what_stays(home: Path) -> None:
    kept = [each for each in sorted(home.iterdir()) if each.is_dir()]
    if not kept:
        return
    sizes = ", ".join(f"{each.name} {_megabytes(each)} MB" for each in kept)
    steps.say(f"Kept for the next run: {sizes}.")
    steps.say(f"To remove these too: rm -rf {home}")


def _megabytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) // 1_000_000
