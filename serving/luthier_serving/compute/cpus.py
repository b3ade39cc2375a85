"""How many CPUs this process may use: the machine's, less what affinity and the container's limit take away.

`os.cpu_count` knows nothing of a container's limit; an engine that starts a thread per core of a large node would spend
its time being throttled. Both versions of Linux control groups are read.
"""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Return the number of CPUs that this process may keep busy, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    limit = _limit_v2(cgroup) or _limit_v1(cgroup)
    return max(1, min(allowed, math.ceil(limit))) if limit else allowed


def _limit_v2(cgroup: Path) -> float | None:
    words = _read(cgroup / "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _limit_v1(cgroup: Path) -> float | None:
    quota, period = (_read(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
