"""Fixtures of all tests of the trainer, on a GPU or not; each conftest imports them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.trainer.models import Rows, read_reviews, tiny_models_in


@pytest.fixture(scope="session")
def reviews() -> Rows:
    """Real review sentences, evenly of both labels."""
    return read_reviews()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, reviews: Rows) -> Callable[[str], Path]:
    """Random models of a few thousand weights, one for each architecture, in hub format."""
    return tiny_models_in(tmp_path_factory.mktemp, reviews)
