"""How many CPUs this process may use, and telling the libraries so before they are imported.

Libraries ask the machine, not the pod: on a node of 64 CPUs a pod that is limited to 2 would start 64 threads, which
mostly wait for each other.
"""

import math
import os
from pathlib import Path

# Read at import by torch (OpenMP) and tokenizers (rayon), and by BLAS behind numpy and scikit-learn.
_VARIABLES = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# By default OpenMP's threads spin while they wait for each other. That gains a little where they have the CPUs to
# themselves; on a node that they share it was measured to make a training step 4 to 6 times slower.
_WAIT_POLICY = ("OMP_WAIT_POLICY", "PASSIVE")


def cpu_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the whole CPUs that affinity and the cgroup's quota (v2 or v1) leave, at least 1."""
    quota = _quota_v2(cgroup / "cpu.max") or _quota_v1(cgroup / "cpu")
    available = len(os.sched_getaffinity(0))
    return min(available, max(1, math.ceil(quota))) if quota else available


def limit_threads() -> int:
    """Set the libraries' environment variables, unless the user has, and return the limit."""
    limit = cpu_limit()
    for variable in _VARIABLES:
        os.environ.setdefault(variable, str(limit))
    os.environ.setdefault(*_WAIT_POLICY)
    return limit


def _quota_v2(path: Path) -> float | None:
    if not path.exists():
        return None
    quota, period = path.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    path = folder / "cpu.cfs_quota_us"
    if not path.exists():
        return None
    quota = int(path.read_text())
    return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
