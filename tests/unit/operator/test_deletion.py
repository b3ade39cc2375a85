"""A FineTuneJob that is deleted in every state: nothing is left running, and its versions stay or go as it says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier_api.documents import Removal
from luthier_api.reasons import Reason
from luthier_operator.manifests.jobs import failure_rules
from luthier_operator.model import names
from luthier_operator.model.views import Meta
from luthier_operator.plan.finetunejob.policies import plan_unreadable
from support.operator.stories import delete_until_gone, published, training

pytestmark = pytest.mark.unit

RATES = ["0.00002", "0.001", "0.003"]


def preparing(world: Any) -> None:
    world.settle()


def edited(world: Any) -> None:
    """One version is published, and another run trains."""
    published(world)
    world.edit(hyperparameters={"learningRate": RATES[1]})
    training(world)


def published_unseen(world: Any) -> None:
    training(world)
    world.train_ends()


def failed(world: Any) -> None:
    training(world)
    world.fails("train")
    world.settle()


def suspended(world: Any) -> None:
    training(world)
    world.edit(suspend=True)
    world.settle()


def expired(world: Any) -> None:
    """The Jobs' time to live is over."""
    published(world)
    for name in list(world.jobs):
        world.remove(name)
    world.settle()


STATES: list[Callable[[Any], None]] = [
    preparing, training, published, edited, published_unseen, failed, suspended, expired,
]  # fmt: skip
in_every_state = pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)


def live(world: Any) -> list[str]:
    return [name for name, job in world.jobs.items() if not job.get("status", {}).get("conditions")]


@in_every_state
def test_with_delete_nothing_is_left_running_and_its_versions_are_removed(
    make_world: Any, make_spec: Any, state: Callable[[Any], None]
) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    state(world)
    assert world.finalizers == (names.FINALIZER,)
    world.delete_resource()
    assert not world.gone
    delete_until_gone(world)
    assert world.registry == {} and live(world) == []
    assert world.events[-1] == Reason.REMOVED


@in_every_state
def test_with_retain_the_garbage_collector_does_it_all_and_the_versions_stay(
    world: Any, state: Callable[[Any], None]
) -> None:
    state(world)
    assert world.finalizers == ()
    kept = dict(world.registry)
    world.deleting = True
    assert world.plan().empty, "as when somebody else's finalizer still holds it"
    world.delete_resource()
    assert world.gone and world.jobs == {} and world.registry == kept


@in_every_state
def test_retain_while_it_is_being_deleted_lets_it_go_at_once(
    make_world: Any, make_spec: Any, state: Callable[[Any], None]
) -> None:
    for steps in range(4):
        world = make_world(make_spec(deletionPolicy="Delete"))
        state(world)
        world.delete_resource()
        for _ in range(steps):
            world.step()
            world.collect()
        kept = dict(world.registry)
        world.edit(deletionPolicy="Retain")
        world.step()
        world.collect()
        assert world.gone and world.registry == kept
        assert world.jobs == {}, "a removal that had begun would go on without an owner"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=st.sampled_from(STATES), cuts=st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_cut_off_anywhere_it_still_goes_and_takes_its_versions_along(
    make_world: Any, make_spec: Any, state: Callable[[Any], None], cuts: list[int]
) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    state(world)
    world.delete_resource()
    delete_until_gone(world, *cuts)
    assert world.registry == {} and live(world) == []


def test_the_finalizer_comes_before_the_first_job(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    world.step(cut=1)
    assert (world.finalizers, world.jobs) == ((names.FINALIZER,), {})


def test_the_finalizer_follows_the_policy(world: Any) -> None:
    published(world)
    assert world.finalizers == ()
    world.edit(deletionPolicy="Delete")
    world.settle()
    assert world.finalizers == (names.FINALIZER,)
    world.finalizers += ("example.com/other",)
    world.edit(deletionPolicy="Retain")
    world.settle()
    assert world.finalizers == ("example.com/other",)


def test_what_never_came_to_anything_goes_at_once(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    world.step(cut=1)
    world.delete_resource()
    plan = world.step()
    assert world.gone and plan.assumes_gone and not plan.applies


def test_the_condition_and_events_say_how_the_deletion_goes(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    training(world)
    world.delete_resource()
    world.step()
    assert world.ready["message"].startswith("Stopping its 2 Jobs; then the versions are removed. To keep the versions")
    world.collect()
    world.step()
    assert world.ready["message"].startswith("Removing the versions from s3://models/sentiment. To keep the versions")
    assert world.status["phase"] == "Deleting" and world.condition("Reconciling")["status"] == "True"
    assert world.condition("Prepared")["status"] == "True", "what is known stays known"
    assert world.events[-1] == Reason.DELETING


def test_a_pod_on_a_node_that_is_lost_is_named_while_it_is_waited_for(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    training(world)
    gone = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager",
    }
    pod = world.pod(world.job("train"), phase="Running", conditions=[gone])
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pod["spec"] = {**pod["spec"], "nodeName": "node-7"}
    world.delete_resource()
    world.step()
    assert "If it is gone for good: kubectl delete node node-7." in world.ready["message"]
    assert world.job("remove") is None


def test_nothing_is_removed_before_the_api_server_itself_says_that_nothing_runs(
    make_world: Any, make_spec: Any
) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    expired(world)
    world.delete_resource()
    assert world.plan().applies and world.plan().assumes_gone


def test_a_version_that_is_served_or_aliased_stays_and_the_last_event_says_so(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    for rate in RATES:
        world.edit(hyperparameters={"learningRate": rate})
        published(world)
    world.in_use, world.aliases = {"v1"}, {"production": "v2"}
    world.delete_resource()
    world.settle()
    world.removal_ends("remove")
    note = world.plan().events[0].message
    assert note == "Versions removed from storage: v3. Kept: v1 (It is served). v2 (The alias production points at it)."
    delete_until_gone(world)
    assert sorted(world.registry.values()) == ["v1", "v2"]


def test_a_version_that_comes_into_service_meanwhile_is_spared(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    world.settle()
    (first,) = live(world)
    world.in_use = {"v1"}
    delete_until_gone(world)
    assert list(world.registry.values()) == ["v1"]
    assert first not in world.jobs


def test_the_job_outlives_the_collection_of_its_resource_and_is_as_safe_as_any(make_world: Any, make_spec: Any) -> None:
    placed = {"nodeSelector": {"pool": "cpu"}, "serviceAccountName": "s3-writer", "imagePullSecrets": ["registry"]}
    spec = make_spec(deletionPolicy="Delete", image="old/trainer:gone", queueName="team", gpusPerNode=4, **placed)
    world = make_world(spec, name="a" * 52)
    world.settle()
    world.delete_resource()
    world.step()
    world.collect()
    world.step()
    job = world.job("remove")
    metadata, pod = job["metadata"], job["spec"]["template"]["spec"]
    assert len(metadata["name"]) <= 63 and "ownerReferences" not in metadata
    assert metadata["annotations"] == {names.OWNER_UID: "uid-1"}
    assert metadata["labels"][names.QUEUE] == "team" and job["spec"]["suspend"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert job["spec"]["podFailurePolicy"] == {"rules": failure_rules()}
    (container,) = pod["containers"]
    assert container["image"] == "trainer:1", "the spec's image may be gone, or know no such command"
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert (pod["nodeSelector"], pod["serviceAccountName"]) == ({"pool": "cpu"}, "s3-writer")
    assert pod["imagePullSecrets"] == [{"name": "registry"}] and pod["automountServiceAccountToken"] is False
    world.step()
    assert "The Job that removes the versions waits in queue team." in world.ready["message"]


def test_versions_are_looked_for_wherever_the_output_has_been(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.edit(output={"name": "moods", "uri": "s3://elsewhere/deep/", "secretRef": {"name": "s3"}})
    world.settle()
    world.delete_resource()
    world.settle()
    text = world.job("remove")["spec"]["template"]["metadata"]["annotations"][names.RUN_DOCUMENT]
    removal = Removal.from_json(text)
    assert [(place.uri, place.name) for place in removal.places] == [
        ("s3://elsewhere/deep", "moods"),
        ("s3://models", "sentiment"),
    ]
    assert removal.versions is None and removal.origin.uid == "uid-1" and removal.run_keys


def test_jobs_of_an_earlier_resource_of_the_same_name_are_left_alone(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    training(world)
    for job in world.jobs.values():
        job["metadata"]["ownerReferences"][0]["uid"] = "uid-0"
    world.delete_resource()
    assert world.plan().deletes == ()


@pytest.mark.parametrize(
    ("policy", "held", "released"), [("Delete", True, False), ("Retain", True, True), (None, True, True)]
)
def test_a_spec_that_cannot_be_read_holds_nothing_unless_it_says_delete(
    make_world: Any, policy: str | None, held: bool, released: bool
) -> None:
    meta = Meta("FineTuneJob", "team", "reviews", "uid-1", 3, True, "", (names.FINALIZER,) if held else ())
    raw = {"spec": {"deletionPolicy": policy} if policy else {}}
    status = make_world().resource().status
    plan = plan_unreadable(meta, raw, status, "spec.model: Field required.", datetime(2026, 1, 1, tzinfo=UTC))
    assert plan.release is released
    if not released:
        assert plan.status
        assert plan.status["conditions"][0]["message"].startswith("The versions cannot be removed: spec.model:")


def test_a_namespace_that_is_being_deleted_is_not_held_for_a_removal_that_cannot_run_in_it(
    make_world: Any, make_spec: Any
) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    training(world)
    world.delete_resource()
    world.namespace_ending = True
    world.settle()
    assert world.gone and world.job("remove") is None


def test_in_a_namespace_that_is_being_deleted_a_removal_under_way_may_finish(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    training(world)
    world.delete_resource()
    world.settle()
    assert world.job("remove")
    world.namespace_ending = True
    world.settle()
    assert not world.gone, "its pod runs, and may end before the namespace controller stops it"
