"""What is a resource's own is told by uids, which nobody can guess, and never by names or labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luthier_operator.model.ownership import join
from luthier_operator.model.views import PodView
from support.operator.views import train_job

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)
JOB = train_job()


def pod(name: str, *, owner: str = "job-1", seconds: int | None = 0, **changes: Any) -> PodView:
    created = None if seconds is None else START + timedelta(seconds=seconds)
    return PodView(name=name, owner_uid=owner, phase="Running", created_at=created, **changes)


def test_a_job_of_another_resource_of_the_same_name_is_not_its_own() -> None:
    other = replace(JOB, uid="job-0", owner_uid="uid-0")
    jobs = join("uid-1", [other, JOB], [pod("p", owner="job-0")])
    assert jobs.runs == (JOB,) and jobs.others == (other,) and jobs.own == (JOB,)


def test_jobs_that_remove_versions_are_no_runs() -> None:
    prune, remove = replace(JOB, uid="job-2", stage="prune"), replace(JOB, uid="job-3", stage="remove")
    jobs = join("uid-1", [prune, JOB, remove], ())
    assert jobs.runs == (JOB,) and jobs.removals == (prune, remove) and jobs.own == (JOB, prune, remove)


def test_a_pod_belongs_to_the_job_that_made_it_and_the_newest_comes_first() -> None:
    pods = [pod("b", seconds=5), pod("x", owner="job-2", seconds=9), pod("a", seconds=5), pod("c", seconds=7)]
    (job,) = join("uid-1", [JOB], pods).runs
    assert [each.name for each in job.pods] == ["c", "b", "a"]
    assert replace(job, pods=()) == JOB


def test_a_pod_without_a_time_counts_as_the_oldest() -> None:
    (job,) = join("uid-1", [JOB], [pod("unknown", seconds=None), pod("known")]).runs
    assert [each.name for each in job.pods] == ["known", "unknown"]


def test_a_name_is_taken_whoever_has_it() -> None:
    jobs = join("uid-1", [JOB, replace(JOB, name="theirs", owner_uid="uid-0")], ())
    assert jobs.has("reviews-1-train") and jobs.has("theirs") and not jobs.has("reviews-1-prepare")
