"""A removal of versions that fails, hangs or is lost: the resource says why, and the removal is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from luthier_operator.model.ownership import join
from luthier_operator.model.parse import job_view
from luthier_operator.model.views import Refusal
from luthier_operator.plan.finetunejob import deletion
from luthier_operator.plan.finetunejob.situation import ObservedRuns
from support.operator.stories import delete_until_gone, published, training

pytestmark = pytest.mark.unit


def broken(world: Any) -> None:
    """The removal has failed for good, and its Job says when."""
    world.settle()
    failure = Failure(reason=Reason.STORAGE_DENIED, message="The key may not delete; allow s3:DeleteObject.")
    job = world.job("remove")
    world.end(job, ExitCode.STORAGE_DENIED, Result(failure=failure).to_termination_message())
    job["status"]["conditions"][0]["lastTransitionTime"] = f"{world.now:%Y-%m-%dT%H:%M:%SZ}"
    world.settle()


def test_a_removal_that_failed_says_why_and_what_to_do_and_is_tried_again(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    broken(world)
    text = world.ready["message"]
    assert text.startswith("The versions could not be removed: The key may not delete; allow s3:DeleteObject. ")
    assert "every 10 minutes" in text and text.endswith("set deletionPolicy to Retain.")
    assert (world.ready["reason"], world.events[-1]) == (Reason.REMOVAL_FAILED, Reason.REMOVAL_FAILED)
    assert world.condition("Stalled")["status"] == "True" and world.condition("Reconciling") is None
    due = world.plan().requeue_after_s
    assert due and 590 < due <= 600
    world.now += timedelta(seconds=600)
    delete_until_gone(world)
    assert world.registry == {}


@pytest.mark.parametrize(
    "repair",
    [
        lambda world: setattr(world, "retry", "now"),
        lambda world: world.edit(output={**world.spec.output.to_wire(), "secretRef": {"name": "better"}}),
        lambda world: world.edit(output={**world.spec.output.to_wire(), "endpoint": "https://s3.example.com"}),
    ],
    ids=["retry annotation", "another Secret", "another endpoint"],
)
def test_a_removal_that_failed_is_tried_again_at_once_when_something_is_edited(
    make_world: Any, make_spec: Any, repair: Callable[[Any], None]
) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    broken(world)
    before = world.now
    repair(world)
    delete_until_gone(world)
    assert world.registry == {} and (world.now - before).total_seconds() < 60


def test_a_removal_whose_result_is_lost_is_made_again(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    world.settle()
    world.removal_ends("remove")
    world.pods.clear()
    delete_until_gone(world)
    assert world.registry == {}


def test_a_removal_that_is_being_replaced_does_not_release_the_resource(make_world: Any, make_spec: Any) -> None:
    """Its result is of what was asked before the edit, or before another version came into service."""
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    world.settle()
    old = world.job("remove")
    world.edit(nodeSelector={"disk": "ssd"})
    world.step()
    assert "deletionTimestamp" in old["metadata"]
    world.removal_ends("remove")
    assert not world.plan().release
    world.settle()
    assert not world.gone and world.job("remove") is not old
    world.removal_ends("remove")
    world.settle()
    assert world.gone


def test_a_failed_removal_that_is_being_deleted_is_not_said_to_have_failed_again(
    make_world: Any, make_spec: Any
) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    world.settle()
    world.fails("remove", ExitCode.STORAGE_DENIED)
    world.settle()
    assert world.ready["reason"] == "RemovalFailed"
    world.job("remove", live=False)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    plan = world.step()
    assert world.ready["reason"] == "Deleting" and plan.requeue_after_s is None, "its end wakes the resource"


def test_a_removal_that_does_not_get_on_says_why(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    world.settle()
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
    world.pod(world.job("remove"), phase="Pending", containerStatuses=[{"name": "main", "state": {"waiting": waiting}}])
    world.step()
    assert 'The versions cannot be removed yet: The pod cannot start: secret "s3" not found.' in world.ready["message"]
    assert world.ready["message"].endswith("set deletionPolicy to Retain.")


def test_a_removal_that_is_being_tried_again_says_what_it_failed_of(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    published(world)
    world.delete_resource()
    world.settle()
    failure = Failure(reason=Reason.STORAGE_UNAVAILABLE, message="https://s3.example.com does not answer.")
    text = Result(failure=failure).to_termination_message()
    world.end(world.job("remove"), ExitCode.STORAGE_UNAVAILABLE, text, final=False)
    world.step()
    assert "cannot be removed yet: https://s3.example.com does not answer." in world.ready["message"]
    assert world.ready["reason"] == Reason.DELETING


def test_a_removal_whose_pod_is_refused_is_asked_about_and_says_why(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(deletionPolicy="Delete", serviceAccountName="s3-writer"))
    published(world)
    world.delete_resource()
    world.settle()
    job = world.job("remove")
    job["status"] = {"startTime": f"{world.now:%Y-%m-%dT%H:%M:%SZ}"}
    world.now += timedelta(seconds=4)
    assert world.plan().requeue_after_s == 4, "nothing wakes the operator for an Event"
    said = (
        'Error creating: pods "x" is forbidden: error looking up service account: serviceaccount "s3-writer" not found'
    )
    jobs = [job_view(raw) for raw in world.jobs.values()]
    observed = ObservedRuns(join(world.uid, jobs, ()), pod_events={job["metadata"]["uid"]: said})
    plan = deletion.plan_deletion(world.resource(), observed, world.now, world.defaults)
    assert plan.status
    assert "Create the ServiceAccount s3-writer" in plan.status["conditions"][0]["message"]


@pytest.mark.parametrize("quota_exceeded", [True, False])
def test_a_removal_that_the_cluster_refuses_is_said_with_the_way_out_and_tried_again(
    make_world: Any, make_spec: Any, quota_exceeded: bool
) -> None:
    world = make_world(make_spec(deletionPolicy="Delete"))
    training(world)
    world.delete_resource()
    world.refused = Refusal("exceeded quota: jobs", quota_exceeded)
    plan = world.step()
    assert world.ready["message"].startswith("The versions cannot be removed: The cluster refuses what that needs: ")
    assert "set deletionPolicy to Retain" in world.ready["message"]
    assert plan.requeue_after_s == 30 and not plan.release and not plan.applies
    world.refused = None
    world.step()
    assert world.ready["reason"] == "Deleting"
