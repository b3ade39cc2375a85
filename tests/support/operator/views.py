"""Views of objects, for tests that need one and care about a field or two of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from luthier_operator.model.views import JobView

_TRAIN = JobView(
    namespace="team",
    name="reviews-1-train",
    uid="job-1",
    owner_uid="uid-1",
    run="reviews-1",
    stage="train",
    spec_hash="",
    run_key=None,
    suspended=False,
    deleting=False,
    ttl_s=None,
    failed=0,
    outcome=None,
    reason="",
    message="",
)


def train_job(**changes: Any) -> JobView:
    """A training Job that runs, with these changes."""
    return replace(_TRAIN, **changes)
