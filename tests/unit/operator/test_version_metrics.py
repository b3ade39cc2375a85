"""All metrics stand once in a status, in the version that answers the spec; the list has one to compare versions by."""

from typing import Any

import pytest

pytestmark = pytest.mark.unit

ALL = {"eval_f1_macro": "0.9", "eval_accuracy": "0.92", "test_f1_macro": "0.88"}
ONE = {"eval_f1_macro": "0.9"}


def run_through(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.settle()


def metrics_of(world: Any) -> tuple[dict[str, str], list[dict[str, str]]]:
    return world.status["artifact"]["metrics"], [each["metrics"] for each in world.status["versions"]]


def test_only_the_version_that_answers_has_all_metrics(make_world: Any) -> None:
    world = make_world()
    run_through(world)
    assert metrics_of(world) == (ALL, [ONE])
    world.edit(hyperparameters={"learningRate": "1e-5"})
    world.settle()
    assert metrics_of(world) == (ALL, [ONE]), "the version of the spec before stays whole until there is another"
    world.prepare_ends()
    world.settle()
    world.train_ends()
    world.settle()
    assert metrics_of(world) == (ALL, [ONE, ONE])
    assert world.step().status is None, "nothing is written again and again"
    for version in world.status["versions"]:
        assert {"version", "uri", "digest", "promotable", "sizeBytes", "specHash", "runKey"} <= set(version)


def test_a_version_that_an_edit_comes_back_to_has_the_metric_of_the_list(make_world: Any) -> None:
    world = make_world()
    run_through(world)
    first = world.status["artifact"]["version"]
    world.edit(hyperparameters={"learningRate": "1e-5"})
    run_through(world)
    world.edit(hyperparameters={})
    world.settle()
    assert world.status["artifact"]["version"] == first
    assert metrics_of(world) == (ONE, [ONE, ONE])


def test_a_status_of_an_older_release_keeps_the_metrics_of_its_version(make_world: Any) -> None:
    world = make_world()
    run_through(world)
    for version in world.status["versions"]:
        version["metrics"] = dict(ALL)
    world.settle()
    assert metrics_of(world) == (ALL, [ONE])
    for version in world.status["versions"]:
        version["metrics"] = {"eval_rmse": "0.1", "eval_loss": "0.01"}
    world.settle()
    assert metrics_of(world)[1] == [{"eval_rmse": "0.1"}]
