"""The operators as processes: how each is started, and what it has used of the machine.

CPU and memory are the process's own, as the kernel counts them, so what else the machine does changes neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from luthier_dev.processes import Program, free_ports, start_child
from luthier_dev.waiting import wait_until

US, TUTORIAL, FLOOR = "luthier", "tutorial", "floor"
_PEERS = Path(__file__).parent / "peers"
# As in the operator's image: a start is not to be charged with the compilation of every module.
_KEEPS_BYTE_CODE = {"PYTHONDONTWRITEBYTECODE": ""}
_QUIET_CPU = 0.1
_QUIET_S = 3.0


class Contender:
    """An operator that works in a cluster."""

    def __init__(self, name: str, kubeconfig: Path, folder: Path, **settings: str) -> None:
        """Not started yet."""
        self.name = name
        self._folder = folder
        (self._port,) = free_ports(1)
        self._environment = {
            "KUBECONFIG": str(kubeconfig),
            **_KEEPS_BYTE_CODE,
            "LUTHIER_TRAINER_IMAGE": "trainer:1",
            "LUTHIER_SERVER_IMAGE": "server:1",
            "LUTHIER_HTTP_HOST": "127.0.0.1",
            "LUTHIER_HTTP_PORT": str(self._port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return at once."""
        if self.name == US:
            command = [sys.executable, "-W", "ignore", "-m", "luthier_operator"]
        else:
            peer = str(_PEERS / f"{self.name}.py")
            command = [sys.executable, "-W", "ignore", "-m", "kopf", "run", "--standalone", "--all-namespaces", peer]
        self._process = start_child(Program(self.name, command, self._environment), self.log, "bench")
        self._started = time.monotonic()

    def stop(self) -> None:
        """Kill it: what it remembers is not worth anything."""
        assert self._process
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> Path:
        """What it says."""
        return self._folder / f"{self.name}.log"

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    @property
    def cpu_s(self) -> float:
        """CPU that it has used since its start, in seconds of one core."""
        assert self._process
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} has ended: {self.log.read_text()[-2000:]}")
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def rss_peak_mib(self) -> float:
        """The most memory that it has held, as the kernel remembers it."""
        return self._memory("VmHWM")

    @property
    def rss_mib(self) -> float:
        """The memory that it holds now."""
        return self._memory("VmRSS")

    def metric(self, name: str) -> float:
        """Return the sum of one of our operator's own metrics over all its labels; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def wait_until_quiet(self, timeout_s: float) -> float:
        """Return the CPU seconds at which it had nothing left to do: it then uses next to nothing for a while."""
        last, since, busy = self.cpu_s, time.monotonic(), self.cpu_s

        def working() -> str | None:
            nonlocal last, since, busy
            now, used = time.monotonic(), self.cpu_s
            if used - last > _QUIET_CPU * (now - since):
                busy, last, since = used, used, now
                return f"{self.name} is at work"
            return None if now - since > _QUIET_S else f"{self.name} may have more to do"

        wait_until(working, f"{self.name} with nothing left to do", timeout_s, interval_s=0.5)
        return busy

    def _memory(self, field: str) -> float:
        assert self._process
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(field))
        return round(int(line.split()[1]) / 1024, 1)


def compile_all() -> None:
    """Import once what the contenders import, so that the byte code of it is there."""
    imports = "import kopf.cli, kubernetes.aio.config, luthier_operator.__main__"
    command = [sys.executable, "-W", "ignore", "-c", imports]
    subprocess.run(command, env={**os.environ, **_KEEPS_BYTE_CODE}, check=True)


def log_folder(directory: Path) -> Path:
    """Return where contenders write, beside the control plane's own logs."""
    folder = directory / "contenders"
    os.makedirs(folder, exist_ok=True)
    return folder
