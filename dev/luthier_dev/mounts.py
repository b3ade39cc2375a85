"""Folders with mounts below them: unmount and remove, never through a mount into somebody's data; link across.

Owns these deeds for the runtime and the clean-up. Refuses to remove a folder while anything is mounted below it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from luthier_dev.errors import MachineError


def below(folder: Path) -> list[Path]:
    """Mount points at or below `folder`, deepest first; one that is mounted over appears more than once."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split(" ")[4].encode().decode("unicode_escape"))  # blanks stand there as \040
        if point == folder or folder in point.parents:
            found.append(point)
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def unmount(folder: Path) -> None:
    """Unmount everything at or below `folder`; lazily what is still in use."""
    for point in below(folder):
        plain = subprocess.run(["umount", str(point)], capture_output=True, check=False)
        if plain.returncode != 0:
            subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)


def remove(folder: Path) -> None:
    """Remove `folder` and all below it, after unmounting.

    Raises:
        MachineError: something is still mounted below, and removing would reach through it.
    """
    if not folder.exists():
        return
    unmount(folder)
    if left := below(folder):
        raise MachineError(f"{left[0]} is still mounted, so {folder} is left alone: find its user with fuser -vm.")
    shutil.rmtree(folder)


def link_tree(source: Path, target: Path, mounted: Path) -> None:
    """Fill the folder `target` with hard links to the files below `source`; both lie on one file system.

    The kernel refuses links from one mount to another even then, and buildah mounts its folder `mounted` on itself
    while it works. In a mount namespace of its own, `cp` sees that folder without.

    Raises:
        MachineError: cp failed.
    """
    script = 'while umount --lazy "$1" 2>/dev/null; do :; done; exec cp --archive --link -T "$2" "$3"'
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(mounted), str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise MachineError(f"Linking {source} to {target} failed: {result.stderr.strip()[:500]}")
