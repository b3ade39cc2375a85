"""Disruptions of a run, what they and its GPUs cost, and pods that are not made or did not start."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.exitcodes import ExitCode
from support.operator.stories import to_training, wait

pytestmark = pytest.mark.unit


# Disruptions, and what they cost


def test_each_disruption_is_counted_once_although_its_pod_is_soon_gone(world: Any) -> None:
    job = to_training(world)
    for number in (1, 2, 3):
        world.disrupt("train", "PreemptionByScheduler")
        world.settle()
        assert world.status["attempts"] == {"failed": 0, "preempted": number}
        assert (world.ready["reason"], world.status["lastFailure"]["reason"]) == ("Retrying", "Preempted")
        for pod in world.pods_of(job):
            del world.pods[pod["metadata"]["name"]]
        world.settle()
        assert world.status["attempts"]["preempted"] == number
        world.running(job)
        wait(world, 5)
    world.train_ends()
    world.settle()
    assert world.ready["status"] == "True"


def test_pods_that_end_in_the_same_second_are_not_counted_again_and_again(world: Any) -> None:
    job = to_training(world)
    for _ in range(3):
        pod = world.pod(job, phase="Running")
        pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    for pod in world.pods_of(job):
        world.end_pod(pod, ExitCode.KILLED, disruption="EvictionByEvictionAPI")
    world.settle()
    assert world.status["attempts"] == {"failed": 0, "preempted": 4} and world.plan().empty


def test_what_an_older_release_counted_is_not_counted_again(world: Any) -> None:
    job = to_training(world)
    world.disrupt("train")
    world.settle()
    del world.status["lastFailure"]["at"]
    world.settle()
    assert world.status["attempts"]["preempted"] == 1 and world.status["lastFailure"]["at"]
    wait(world, 5)
    world.running(job)
    world.disrupt("train")
    world.settle()
    assert world.status["attempts"]["preempted"] == 2


def test_gpu_seconds_of_every_pod_are_counted_once(world: Any) -> None:
    job = to_training(world, gpusPerNode=2)
    wait(world, 100)
    world.disrupt("train")
    world.settle()
    first = world.status["usage"]["gpuSeconds"]
    assert first == pytest.approx(2 * 100, abs=10)
    world.pods = {name: pod for name, pod in world.pods.items() if "prepare" in name}
    world.running(job)
    wait(world, 50)
    world.train_ends()
    assert world.step().status, "counted with the end of the run, in one write"
    total = world.status["usage"]["gpuSeconds"]
    assert total - first == pytest.approx(2 * 50, abs=10)
    wait(world, 1000)
    world.settle()
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.settle()
    assert world.status["usage"]["gpuSeconds"] == total, "an edit begins another run and forgets nothing"


def test_a_settled_run_of_a_release_that_did_not_count_is_left_alone(world: Any) -> None:
    to_training(world)
    wait(world, 10)
    world.train_ends()
    world.settle()
    del world.status["usage"]
    assert world.plan().empty


# Pods that are not made


def killed(world: Any, stage: str, *, gone: bool = False, **ended: Any) -> None:
    """End the pod of a stage with exit code 137, and so its Job."""
    job = world.job(stage)
    (pod,) = world.running(job)
    world.end_pod(pod, ExitCode.KILLED, reason=ended.pop("reason", "Error"))
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    state.update(ended)
    job["status"]["failed"] = 1
    world.finish(job, "Failed")
    text = f"Container main for pod team/{pod['metadata']['name']} failed with exit code 137 matching FailJob rule"
    job["status"]["conditions"][0]["message"] = text
    if gone:
        del world.pods[pod["metadata"]["name"]]


UNKNOWN = {"reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}


@pytest.mark.parametrize("stage", ["prepare", "train"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_pod_that_never_started_or_was_lost_in_a_reboot_is_made_again_and_counts_as_no_failure(
    world: Any, stage: str, gone: bool
) -> None:
    world.settle() if stage == "prepare" else to_training(world)
    for times in (1, 2):
        before = world.job(stage)["metadata"]["uid"]
        killed(world, stage, gone=gone, **UNKNOWN)
        world.settle()
        assert world.job(stage)["metadata"]["uid"] != before
        assert world.status["attempts"] == {"failed": 0, "preempted": times}
        assert world.status["phase"] in ("Preparing", "Training") and world.ready["reason"] != "OutOfMemory"
    if stage == "prepare":
        world.prepare_ends()
        world.settle()
    world.train_ends()
    world.settle()
    assert world.status["phase"] == "Succeeded"


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_a_pod_that_somebody_kills_is_made_again_until_the_limit_and_is_not_said_to_lack_memory(
    world: Any, stage: str
) -> None:
    world.edit(backoffLimit=1)
    world.settle() if stage == "prepare" else to_training(world)
    killed(world, stage)
    world.settle()
    assert world.status["attempts"] == {"failed": 1, "preempted": 0} and world.job(stage)
    killed(world, stage)
    world.settle()
    assert world.status["phase"] == "Failed" and world.ready["reason"] == "Crashed" and not world.job(stage)


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_a_pod_that_was_killed_for_memory_is_not_made_again(world: Any, stage: str) -> None:
    world.settle() if stage == "prepare" else to_training(world)
    killed(world, stage, reason="OOMKilled")
    world.settle()
    assert world.status["phase"] == "Failed" and world.ready["reason"] == "OutOfMemory"


def test_a_container_that_could_not_be_started_has_held_no_gpu_since_1970(world: Any) -> None:
    to_training(world)
    (pod,) = world.running(world.job("train"))
    world.end_pod(pod, 128, reason="StartError")
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    world.settle()
    assert world.status.get("usage", {}).get("gpuSeconds", 0) == 0


def test_a_job_without_a_pod_is_asked_about_after_two_seconds_then_ever_more_rarely(world: Any) -> None:
    world.settle()
    waits = []
    for _ in range(4):
        waits.append(world.plan().requeue_after_s)
        wait(world, waits[-1])
    assert waits[0] <= 2 and waits == sorted(waits) and waits[-1] <= 10
    job = world.job("prepare")
    world.pod_events = {
        job["metadata"]["uid"]: 'Error creating: pods "x" is forbidden: exceeded quota: q, requested: cpu=1'
    }
    world.settle()
    assert world.ready["reason"] == "QuotaExceeded" and world.condition("Reconciling")
    world.pod_events = {}
    world.running(job)
    world.settle()
    assert world.ready["reason"] == "Preparing" and world.plan().requeue_after_s is None


def test_what_an_earlier_resource_of_the_name_still_trains_is_not_trained_beside_it(world: Any) -> None:
    job = to_training(world)
    job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.uid, world.status = "uid-2", {}
    world.edit(resources={"limits": {"memory": "16Gi"}})
    world.step()
    world.prepare_ends()
    world.step()
    assert world.ready["reason"] == "WaitingForRun" and len(world.live_trains) == 1
    world.collect()
    world.settle()
    assert world.job("train")["metadata"]["name"] != job["metadata"]["name"]
