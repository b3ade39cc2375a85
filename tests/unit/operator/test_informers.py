"""What the watches tell: what the store keeps, and whom it wakes. An event that tells nothing new wakes nobody."""

from collections.abc import Mapping
from typing import Any

import pytest

from luthier_operator.model import names
from luthier_operator.model.views import Key
from luthier_operator.store.informers import Informers
from luthier_operator.store.store import Store

pytestmark = pytest.mark.unit

KEY = Key("FineTuneJob", "ns", "reviews")
FRONT = Key("ModelDeployment", "ns", "front")


class World:
    """A store with its informers, and whom they woke."""

    def __init__(self) -> None:
        self.soon: list[Key] = []
        self.at_once: list[Key] = []
        self.store = Store()
        self.informers = Informers(self.store, self.at_once.append, self.soon.append)

    def job(self, version: int, status: Mapping[str, Any] | None = None, uid: str = "u1", of: str = "reviews") -> None:
        self.informers.child("Job", job(version, status or {}, uid, of), deleted=False)

    def job_gone(self, version: int, uid: str = "u1") -> None:
        self.informers.child("Job", job(version, {}, uid), deleted=True)


def job(version: int, status: Mapping[str, Any], uid: str = "u1", of: str = "reviews") -> dict[str, Any]:
    return {
        "kind": "Job",
        "metadata": {
            "name": "reviews-1-train",
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {names.FINETUNEJOB: of} if of else {},
        },
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
        "status": dict(status),
    }


def deployment(version: int, follows: str = "reviews") -> dict[str, Any]:
    metadata = {"name": "front", "namespace": "ns", "uid": "d1", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"model": {"fineTuneJobRef": {"name": follows}} if follows else {}}}


def test_an_event_that_tells_nothing_new_wakes_nobody() -> None:
    world = World()

    world.job(1, {"active": 1})
    world.job(2, {"active": 1, "uncountedTerminatedPods": {"succeeded": ["p"]}})
    assert world.soon == [KEY]

    world.job(3, {"active": 0, "failed": 1})
    assert world.soon == [KEY, KEY]


def test_the_end_of_an_object_wakes_although_nothing_of_it_has_changed() -> None:
    world = World()

    world.job(1)
    world.job_gone(2)

    assert world.soon == [KEY, KEY] and not world.store.jobs(KEY)


@pytest.mark.parametrize(("to", "there"), [("others", 1), ("", 0)])
def test_an_object_that_changes_hands_is_no_longer_found_where_it_was_and_wakes_both(to: str, there: int) -> None:
    world, other = World(), Key("FineTuneJob", "ns", to)

    world.job(1)
    world.job(2, of=to)

    assert (len(world.store.jobs(KEY)), len(world.store.jobs(other))) == (0, there)
    assert world.soon == [KEY, other, KEY] if to else world.soon == [KEY, KEY]


@pytest.mark.parametrize("written", [False, True])
def test_an_object_that_vanished_unseen_is_forgotten_and_wakes(written: bool) -> None:
    world = World()
    if written:
        world.store.wrote("Job", job(7, {}))
    else:
        world.job(7)

    world.informers.vanished("Job", "u1", 8)

    assert not world.store.jobs(KEY) and world.soon[-1] == KEY


def test_the_end_of_an_object_is_not_that_of_a_newer_one_of_its_name() -> None:
    world = World()
    world.job(1)
    world.store.wrote("Job", job(7, {}, uid="u2"))

    world.job_gone(5)

    (known,) = world.store.jobs(KEY)
    assert known.uid == "u2"


RESOURCE = {"metadata": {"name": "reviews", "namespace": "ns", "uid": "f1", "resourceVersion": "5"}, "spec": {}}


def test_a_deployment_is_woken_by_what_it_follows_until_it_is_gone() -> None:
    world = World()
    tell = world.informers

    tell.follower("ModelDeployment", deployment(1), deleted=False)
    assert (world.at_once, world.soon) == ([FRONT], [KEY])
    tell.finetunejob(RESOURCE, deleted=False)
    assert (world.at_once, world.soon) == ([FRONT, KEY], [KEY, FRONT])

    tell.follower("ModelDeployment", deployment(9), deleted=True)
    assert world.soon[2:] == [FRONT, KEY]
    tell.finetunejob(RESOURCE, deleted=True)
    assert world.soon[4:] == [KEY]


def test_a_new_resource_is_looked_at_at_once_and_its_changes_with_what_changes_beside_it() -> None:
    world = World()
    world.informers.follower("ModelDeployment", deployment(1, follows=""), deleted=False)
    assert (world.at_once, world.soon) == ([FRONT], [])
    world.informers.follower(
        "ModelDeployment", {**deployment(2, follows=""), "status": {"phase": "Serving"}}, deleted=False
    )
    assert (world.at_once, world.soon) == ([FRONT], [FRONT])


def test_a_job_that_nobody_follows_any_more_is_woken_once_and_wakes_no_deployment() -> None:
    world = World()
    world.informers.follower("ModelDeployment", deployment(1), deleted=False)
    world.informers.follower("ModelDeployment", deployment(2, follows=""), deleted=False)
    assert world.soon == [KEY, FRONT, KEY], "it may have held back an old version"
    world.informers.finetunejob(RESOURCE, deleted=False)
    assert world.soon == [KEY, FRONT, KEY]


def workload(namespace: str, uid: str = "w1") -> dict[str, Any]:
    labels = {names.QUEUED_JOB: "u1"}
    return {"metadata": {"name": uid, "namespace": namespace, "uid": uid, "resourceVersion": "4", "labels": labels}}


@pytest.mark.parametrize("written", [False, True])
def test_a_workload_wakes_the_resource_whose_job_waits(written: bool) -> None:
    world = World()
    if written:
        world.store.wrote("Job", job(1, {}))
    else:
        world.job(1)
    jobs = world.store.jobs(KEY)
    world.soon.clear()

    world.informers.workload(workload("ns"), deleted=False)
    assert world.soon == [KEY] and list(world.store.workloads(jobs)) == ["u1"]
    world.informers.workload(workload("ns"), deleted=False)
    assert world.soon == [KEY], "nothing new"
    world.informers.workload(workload("ns"), deleted=True)
    assert world.soon == [KEY, KEY] and not world.store.workloads(jobs)


def test_a_workload_of_another_namespace_says_nothing_of_a_job() -> None:
    world = World()
    world.job(1)
    world.informers.workload(workload("elsewhere"), deleted=False)
    assert not world.store.workloads(world.store.jobs(KEY))


def test_a_batch_prediction_is_woken_by_the_job_that_it_follows_and_by_its_own_workers() -> None:
    world = World()
    batch = Key("BatchPrediction", "ns", "front")
    world.informers.follower("BatchPrediction", deployment(1), deleted=False)
    assert (world.at_once, world.soon) == ([batch], [KEY])
    world.informers.finetunejob(RESOURCE, deleted=False)
    assert world.soon[-1] == batch
    made = job(2, {}, of="")
    made["metadata"]["labels"] = {names.BATCHPREDICTION: "front"}
    world.informers.child("Job", made, deleted=False)
    assert world.soon[2:] == [batch]
