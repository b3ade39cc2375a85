"""What the GPU tests share. They need local folders alone: no API server, no S3 and no Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier_trainer.runtime.cpus import limit_threads
from support.trainer.models import Rows, read_reviews, tiny_models_in

# Before anything imports torch, as the command line does it.
limit_threads()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything where there is no GPU."""
    import torch

    for item in items:
        if not torch.cuda.is_available() and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session")
def reviews() -> Rows:
    return read_reviews()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, reviews: Rows) -> Callable[[str], Path]:
    return tiny_models_in(tmp_path_factory.mktemp, reviews)
