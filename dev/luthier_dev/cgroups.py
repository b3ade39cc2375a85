"""The control group below which all containers of the node run, so that they can be found and ended.

Owns that one group in every hierarchy of this machine, cgroup v1 and v2. Containers carry no mark in their
environment (see processes); their membership here is what makes them ours.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path

import psutil

from luthier_dev import processes

_ROOT = Path("/sys/fs/cgroup")
NAME = "luthier"


def create() -> None:
    """Make the group where kubelet wants to find it."""
    if _is_v2():
        wanted = set((_ROOT / "cgroup.controllers").read_text().split()) & {"cpu", "cpuset", "memory", "pids"}
        (_ROOT / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in sorted(wanted)))
    for group in _candidates():
        group.mkdir(exist_ok=True)


def end_members(timeout_s: float = 20) -> None:
    """Kill every process in the group; returns when there is none."""
    deadline = time.monotonic() + timeout_s
    while (members := _members()) and time.monotonic() < deadline:
        processes.end(members)


def remove() -> None:
    """Remove the group, from the leaves up; its members must have ended."""
    for group in _candidates():
        for folder in sorted(group.rglob("*/"), key=lambda each: len(each.parts), reverse=True):
            folder.rmdir()
        if group.exists():
            group.rmdir()


def _is_v2() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def _candidates() -> list[Path]:
    """The group in each hierarchy; symbolic links such as cpu -> cpu,cpuacct name one that is listed already."""
    if _is_v2():
        return [_ROOT / NAME]
    return [each / NAME for each in sorted(_ROOT.iterdir()) if each.is_dir() and not each.is_symlink()]


def _pids(listing: Path) -> list[int]:
    try:
        return [int(pid) for pid in listing.read_text().split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):  # a container's group is removed while this walks through them
            return []
        raise


def _members() -> list[psutil.Process]:
    pids: set[int] = set()
    for group in _candidates():
        for listing in group.rglob("cgroup.procs"):
            pids.update(_pids(listing))
    members = []
    for pid in pids - {0}:
        try:
            members.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return members
