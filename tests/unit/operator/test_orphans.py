"""Deleted with `--cascade=orphan` and applied again, or restored: this spec's own is taken over, all else is named."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.unit


def orphaned(world: Any) -> None:
    """Delete the resource without its Jobs, and apply it again."""
    for job in world.jobs.values():
        job["metadata"].pop("ownerReferences", None)
    world.uid, world.status, world.generation = "uid-2", {}, 1


def owners(world: Any) -> set[str]:
    return {reference["uid"] for job in world.jobs.values() for reference in job["metadata"].get("ownerReferences", [])}


@pytest.mark.parametrize("until", ["preparing", "prepared", "training", "published"])
def test_jobs_of_the_same_spec_are_taken_over_and_nothing_is_trained_twice(world: Any, until: str) -> None:
    world.settle()
    if until != "preparing":
        world.prepare_ends()
    if until in ("training", "published"):
        world.settle()
    if until == "published":
        world.train_ends()
    before = {job["metadata"]["uid"] for job in world.jobs.values()}
    orphaned(world)
    world.settle()
    assert world.events.count("Adopted") == 1 and owners(world) == {"uid-2"}
    assert before <= {job["metadata"]["uid"] for job in world.jobs.values()}
    if until == "preparing":
        world.prepare_ends()
        world.settle()
    if until != "published":
        world.train_ends()
        world.settle()
    assert world.status["phase"] == "Succeeded" and len(world.trained) == 1


def test_a_job_of_another_spec_is_left_alone_and_named_with_what_to_do(world: Any) -> None:
    world.settle()
    (job,) = world.jobs.values()
    job["metadata"]["annotations"]["luthier.dev/spec-hash"] = "0" * 64
    orphaned(world)
    world.step()
    assert not owners(world) and f"kubectl delete job {job['metadata']['name']}" in world.ready["message"]
    world.remove(job["metadata"]["name"])
    world.settle()
    assert owners(world) == {"uid-2"} and world.ready["reason"] == "Preparing"


def test_an_orphan_that_trains_the_same_under_another_name_is_named_with_what_to_do(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    orphaned(world)
    world.edit(backoffLimit=7)
    world.settle()
    world.prepare_ends()
    world.step()
    train = world.job("train")["metadata"]["name"]
    assert f"kubectl delete job {train}" in world.ready["message"] and len(world.live_trains) == 1


def test_a_job_that_somebody_else_owns_is_not_taken_over(world: Any) -> None:
    world.settle()
    (job,) = world.jobs.values()
    orphaned(world)
    job["metadata"]["ownerReferences"] = [{"uid": "uid-of-a-cronjob", "controller": False}]
    world.step()
    assert owners(world) == {"uid-of-a-cronjob"} and "Adopted" not in world.events
