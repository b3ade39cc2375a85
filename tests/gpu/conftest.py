"""What the GPU tests share. They need local folders alone: no API server, no S3 and no Ray."""

from __future__ import annotations

import pytest

from luthier_trainer.runtime.cpus import limit_threads
from support.trainer.fixtures import reviews, tiny_models

__all__ = ["reviews", "tiny_models"]

# Before anything imports torch, as the command line does it.
limit_threads()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything where there is no GPU."""
    import torch

    for item in items:
        if not torch.cuda.is_available() and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))
