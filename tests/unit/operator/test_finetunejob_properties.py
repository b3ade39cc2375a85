"""What holds in every history of a FineTuneJob, wherever the operator is cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier_api.exitcodes import ExitCode

pytestmark = pytest.mark.unit

RATES = ["0.00002", "0.001", "0.003"]

Act = tuple[str, Any]
ACTS: dict[str, Callable[[Any, Any], None]] = {
    "edit": lambda world, rate: world.edit(hyperparameters={"learningRate": rate}),
    "suspend": lambda world, on: world.edit(suspend=on),
    "forbid": lambda world, on: world.edit(concurrencyPolicy="Forbid" if on else "Replace"),
    "retry": lambda world, text: setattr(world, "retry", text),
    "prepare ends": lambda world, _: world.prepare_ends() if runs(world, "prepare") else None,
    "train ends": lambda world, _: world.train_ends() if runs(world, "train") else None,
    "prepare fails": lambda world, _: world.fails("prepare") if runs(world, "prepare") else None,
    "train is retried": lambda world, _: (
        world.end(world.job("train"), ExitCode.CRASHED, final=False) if runs(world, "train") else None
    ),
    "a job is removed": lambda world, n: remove_one(world, n),
    "collect": lambda world, _: world.collect(),
    "pods are lost": lambda world, _: world.pods.clear(),
}
going_on = st.tuples(st.sampled_from(["prepare ends", "prepare ends", "train ends"]), st.none())
acts = st.one_of(
    going_on,
    going_on,
    st.tuples(st.just("edit"), st.sampled_from(RATES)),
    st.tuples(st.sampled_from(["suspend", "forbid"]), st.booleans()),
    st.tuples(st.just("retry"), st.sampled_from(["", "again"])),
    st.tuples(st.just("a job is removed"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["prepare fails", "train is retried", "collect", "pods are lost"]), st.none()),
)
# How many plans follow an act, and after how many actions the last of them is cut off.
steps = st.tuples(acts, st.integers(1, 3), st.one_of(st.none(), st.integers(0, 6)))


def runs(world: Any, stage: str) -> bool:
    job = world.job(stage)
    return job is not None and not job["spec"].get("suspend") and "deletionTimestamp" not in job["metadata"]


def remove_one(world: Any, number: int) -> None:
    if world.jobs:
        world.remove(sorted(world.jobs)[number % len(world.jobs)])


def check(world: Any, plan: Any) -> None:
    assert len(world.live_trains) <= 1, "two Jobs hold, or may get, a GPU"
    for apply in plan.applies:
        limits = apply.manifest["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        name, annotations = apply.manifest["metadata"]["name"], apply.manifest["metadata"]["annotations"]
        if "nvidia.com/gpu" in limits:
            assert name.endswith("-train")
            assert annotations["luthier.dev/run-key"] not in world.registry, "trained again although it is published"
    for delete in plan.deletes:
        assert delete.name in world.jobs


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(steps, min_size=8, max_size=25))
def test_any_history_keeps_the_invariants_and_ends_with_the_version_of_the_spec(
    make_world: Any, history: list[tuple[Act, int, int | None]]
) -> None:
    world = make_world()
    for (name, argument), plans, cut in history:
        ACTS[name](world, argument)
        for end in [None] * (plans - 1) + [cut]:
            check(world, world.step(end))
    world.edit(suspend=False)
    world.retry = "at last"
    for _ in range(12):
        world.settle()
        check(world, world.plan())
        ready = world.ready
        if ready["status"] == "True":
            break
        stage = next((stage for stage in ("train", "prepare") if runs(world, stage)), None)
        assert stage, f"nothing goes on, and the version is not there: {ready}"
        ACTS[f"{stage} ends"](world, None)
    assert world.status["artifact"]["version"] == world.registry[world.key()]
    assert world.plan().empty
    assert len(world.trained) == len(set(world.trained)), "a run key was trained twice"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_cut_off_anywhere_the_final_state_is_that_of_an_undisturbed_life(make_world: Any, cuts: list[int]) -> None:
    def live(cut_off: list[int]) -> tuple[Any, ...]:
        world = make_world()
        for end in (world.prepare_ends, world.train_ends):
            for cut in cut_off:
                world.step(cut)
            world.settle()
            end()
        for cut in cut_off:
            world.step(cut)
        world.settle()
        status = world.status
        conditions = [(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]]
        return sorted(world.jobs), status["phase"], status["artifact"], conditions, world.trained

    assert live(cuts) == live([])
