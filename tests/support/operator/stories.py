"""What becomes of a FineTuneJob in the world of the unit tests: it trains, publishes, is deleted."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any


def to_training(world: Any, **changes: Any) -> Any:
    """Bring the world to a training whose pods run; return its Job."""
    if changes:
        world.edit(**changes)
    world.settle()
    world.prepare_ends()
    world.settle()
    job = world.job("train")
    world.running(job)
    return job


def training(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()


def published(world: Any) -> None:
    training(world)
    world.train_ends()
    world.settle()


def wait(world: Any, seconds: float) -> None:
    world.now += timedelta(seconds=seconds)


def delete_until_gone(world: Any, *cuts: int) -> None:
    """Let the operator and the cluster work until the resource is gone; the first plans are cut off there."""
    for cut in itertools.islice(itertools.chain(cuts, itertools.repeat(None)), 80):
        before = set(world.jobs)
        plan = world.step(cut)
        if any(job.endswith("-remove") for job in set(world.jobs) - before):
            assert set(world.jobs) - before == set(world.jobs), "versions are removed while a Job is still there"
        if world.gone:
            return
        if world.job("remove") and "deletionTimestamp" not in world.job("remove")["metadata"] and plan.empty:
            world.removal_ends("remove")
        world.collect()
    raise AssertionError(f"it does not go: {plan}")
