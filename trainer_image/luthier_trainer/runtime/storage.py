"""How a run reaches storage: the registry that it publishes to, and its inputs by the access that is theirs."""

import os
from collections.abc import Callable
from dataclasses import replace

from luthier_api.documents import Access, RunDocument
from luthier_artifacts import Registry, StorageConfig, open_registry

# How long a pod waits for new keys when those in its Secret have expired. What it has trained since its newest
# checkpoint is lost if it gives up, but a GPU may be idle meanwhile.
WAIT_VARIABLE = "LUTHIER_CREDENTIALS_WAIT_S"
DEFAULT_WAIT_S = 1800.0


def open_output(run: RunDocument, on_waiting: Callable[[str | None], object] | None = None) -> Registry:
    """Open the registry that the run publishes to.

    Args:
        run: which names it.
        on_waiting: is told why requests wait because the keys have expired, and None when they go on. Without it, such
            requests fail at once.
    """
    output, config = run.spec.output, StorageConfig.from_access(run.output_access)
    if on_waiting:
        config = replace(_patient(config), on_waiting=on_waiting)
    return open_registry(output.uri, output.name, config)


def input_storage(run: RunDocument, access: Access) -> StorageConfig:
    """Return how an input is reached: by its own access, or by the output's where it names none."""
    return _patient(StorageConfig.from_access(run.output_access if access == Access() else access))


def _patient(config: StorageConfig) -> StorageConfig:
    """Have requests wait for new keys where some may come: environment variables do not change."""
    if config.credentials_dir is None:
        return config
    return replace(config, renewal_wait_s=float(os.environ.get(WAIT_VARIABLE, DEFAULT_WAIT_S)))
