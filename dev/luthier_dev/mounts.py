"""Folders that may have mounts below them: unmount, then remove, never through a mount into somebody's data.

Owns both deeds for the runtime and the clean-up. Refuses to remove a folder while anything is mounted below it.
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
