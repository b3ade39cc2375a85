"""How many CPUs this process may use: the machine's, less what affinity and the container's limit take away.

`os.cpu_count` knows nothing of a container's limit: on a node of 64 CPUs, a pod that is limited to 2 would start 64
threads and spend its time being throttled. Both versions of Linux control groups are read.
"""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Return the number of whole CPUs that this process may keep busy, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1, min(allowed, math.ceil(quota))) if quota else allowed


def _quota_v2(cgroup: Path) -> float | None:
    values = _read(cgroup / "cpu.max").split()
    return int(values[0]) / int(values[1]) if len(values) == 2 and values[0] != "max" else None


def _quota_v1(cgroup: Path) -> float | None:
    quota, period = (_read(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
