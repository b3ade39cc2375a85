"""Starts processes marked as ours, finds them again, and ends only those.

Every process started here carries LUTHIER_OWNER=<home>:<scope> in its environment, and its children inherit
it, so a process that outlived a cut-off run is found without pid files, which can be stale. Containers do not
inherit it; the runtime module finds those by their cgroup. Never ends a process that lacks the mark.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from luthier_dev.errors import NotReady
from luthier_dev.paths import layout
from luthier_dev.waiting import wait_until

OWNER = "LUTHIER_OWNER"
PROGRAM = "LUTHIER_PROGRAM"


@dataclass(frozen=True)
class Program:
    """A program to start: a short name for logs, the command line, and additions to the environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


def owner_mark(scope: str) -> str:
    """What LUTHIER_OWNER holds for processes of `scope` under the present LUTHIER_HOME."""
    return f"{layout().home}:{scope}"


def marked_environment(scope: str, program: str, additions: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the mark and `additions`."""
    return {**os.environ, **(additions or {}), OWNER: owner_mark(scope), PROGRAM: program}


def dies_with_us(argv: Sequence[str]) -> list[str]:
    """The same command, killed by the kernel when the thread that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL", *argv]


def start_child(program: Program, log: Path, scope: str) -> subprocess.Popen[bytes]:
    """Start a program that must not outlive this process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            dies_with_us(program.argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=marked_environment(scope, program.name, program.env),
        )


def start_daemon(program: Program, log: Path, scope: str) -> None:
    """Start a program that outlives this process, in a session of its own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", *program.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=marked_environment(scope, program.name, program.env),
            check=True,
        )


def owned(scope: str) -> list[psutil.Process]:
    """All living processes of `scope`, whoever started them and however long ago."""
    return [p for p, mark in _marked_processes() if mark == owner_mark(scope)]


def owned_names(scope: str) -> set[str]:
    """Names of the programs of `scope` that are alive."""
    names = set()
    for process in owned(scope):
        try:
            names.add(process.environ().get(PROGRAM, ""))
        except psutil.Error:  # it ended since it was listed
            continue
    return names


def homes_in_use(scope: str) -> set[str]:
    """Each LUTHIER_HOME that has living processes of `scope` on this machine."""
    pairs = (mark.rpartition(":") for _, mark in _marked_processes())
    return {home for home, _, kind in pairs if kind == scope}


def end(processes: Iterable[psutil.Process], grace_s: float = 0) -> None:
    """End the given processes: SIGTERM and `grace_s` to comply, then SIGKILL; returns when all are gone.

    psutil compares start times before it signals, so a pid that was handed to another process is left alone.
    """
    alive = list(processes)
    if grace_s > 0:
        _signal(alive, signal.SIGTERM)
        with contextlib.suppress(NotReady):
            wait_until_gone(alive, grace_s)
    _signal(alive, signal.SIGKILL)
    wait_until_gone(alive, timeout_s=10)


def wait_until_gone(processes: Iterable[psutil.Process], timeout_s: float) -> None:
    """Return once none of the processes runs; a zombie counts as gone.

    Raises:
        NotReady: the time is up.
    """
    waiting = list(processes)

    def remaining() -> str | None:
        alive = [each for each in waiting if _runs(each)]
        return f"process {alive[0].pid} still runs" if alive else None

    wait_until(remaining, "the end of all processes", timeout_s, interval_s=0.02)


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _marked_processes() -> list[tuple[psutil.Process, str]]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                mark = process.environ().get(OWNER)
                if mark:
                    found.append((process, mark))
        except psutil.Error:  # it ended meanwhile, or it belongs to the kernel
            continue
    return found
