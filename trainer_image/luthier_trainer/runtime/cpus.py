"""Tells libraries how many CPUs this process may use, before they are imported: they ask the machine, not the pod."""

import os

from luthier_api.cpus import available_cpus

# Read at import by torch (OpenMP) and tokenizers (rayon), and by BLAS behind numpy and scikit-learn.
_VARIABLES = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# By default OpenMP's threads spin while they wait for each other. That gains a little where they have the CPUs to
# themselves; on a node that they share it was measured to make a training step 4 to 6 times slower.
_WAIT_POLICY = ("OMP_WAIT_POLICY", "PASSIVE")


def limit_threads() -> int:
    """Set the libraries' environment variables, unless the user has, and return the limit."""
    limit = available_cpus()
    for variable in _VARIABLES:
        os.environ.setdefault(variable, str(limit))
    os.environ.setdefault(*_WAIT_POLICY)
    return limit
