"""What `kubectl wait`, Flux's health check and Argo CD's see of a FineTuneJob, in every state that it can be in.

    in progress   Ready=False, Reconciling=True    work goes on, or waits for what may come without an edit
    failed        Ready=False, Stalled=True        nothing will happen until somebody edits or retries
    done          Ready=True, and neither
    suspended     Ready=False, and neither         nobody works and nothing is wrong: to kstatus it is not there yet

The rules are those of sigs.k8s.io/cli-utils/pkg/kstatus (status.Compute for custom resources).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from luthier_api.documents import ProgressDocument
from luthier_api.exitcodes import ExitCode
from luthier_operator.model.views import Refusal
from luthier_operator.plan.finetunejob.policies import plan_unreadable

pytestmark = pytest.mark.unit

UNSTARTABLE = "CreateContainerConfigError"
Seen = Literal["InProgress", "Failed", "Current", "Terminating"]


def kstatus(world: Any) -> Seen:
    """What kstatus computes of the resource."""
    if world.deleting:
        return "Terminating"
    if world.status.get("observedGeneration", 0) != world.generation:
        return "InProgress"
    conditions = {c["type"]: c["status"] for c in world.status.get("conditions", [])}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


def waited_for(world: Any) -> bool:
    """Whether `kubectl wait --for=condition=Ready` returns: it ignores a condition of an earlier generation."""
    ready = world.condition("Ready")
    return bool(ready and ready["status"] == "True" and ready["observedGeneration"] >= world.generation)


def nothing(world: Any) -> None:
    del world


def preparing(world: Any) -> None:
    world.settle()


def training(world: Any) -> None:
    preparing(world)
    world.prepare_ends()
    world.settle()
    world.running(world.job("train"))
    world.settle()


def published(world: Any) -> None:
    training(world)
    world.train_ends()
    world.settle()


def reused(world: Any) -> None:
    world.registry[world.key()] = "v7"
    preparing(world)
    world.prepare_ends()
    world.settle()


def gate_failed(world: Any) -> None:
    training(world)
    world.train_ends(promotable=False)
    world.settle()


def failing(stage: str, code: ExitCode) -> Callable[[Any], None]:
    def act(world: Any) -> None:
        (training if stage == "train" else preparing)(world)
        world.end(world.job(stage), code)
        world.settle()

    return act


def crashed_once(world: Any) -> None:
    training(world)
    world.end(world.job("train"), ExitCode.CRASHED, final=False)
    world.settle()


def disrupted(world: Any) -> None:
    training(world)
    world.disrupt("train")
    world.settle()


def stuck(world: Any) -> None:
    world.edit(progressDeadlineSeconds=1)
    training(world)
    world.progress = ProgressDocument(stage="Training", step=1, updated_at="2026-01-01T00:00:00Z")
    for _ in range(4):
        world.step()


def suspended(world: Any) -> None:
    training(world)
    world.edit(suspend=True)
    world.settle()


def resumed(world: Any) -> None:
    suspended(world)
    world.edit(suspend=False)
    world.settle()


def replaced(world: Any) -> None:
    training(world)
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.settle()


def forbidden(world: Any) -> None:
    world.edit(concurrencyPolicy="Forbid")
    replaced(world)


def edited_after_it_was_done(world: Any) -> None:
    published(world)
    world.edit(hyperparameters={"learningRate": "0.001"})
    world.settle()


def reverted(world: Any) -> None:
    edited_after_it_was_done(world)
    world.edit(hyperparameters={"learningRate": "0.00002"})
    world.settle()


def lost(world: Any) -> None:
    training(world)
    world.remove(world.job("train")["metadata"]["name"])
    world.settle()


def named_again(world: Any) -> None:
    preparing(world)
    world.uid, world.status = "uid-2", {}
    for job in world.jobs.values():
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.step()


def waiting_for(reason: str, message: str) -> Callable[[Any], None]:
    def act(world: Any) -> None:
        preparing(world)
        state = {"waiting": {"reason": reason, "message": message}}
        world.pod(world.job("prepare"), phase="Pending", containerStatuses=[{"state": state}])
        world.settle()

    return act


def unschedulable(message: str) -> Callable[[Any], None]:
    def act(world: Any) -> None:
        preparing(world)
        condition = {"type": "PodScheduled", "status": "False", "message": message}
        world.pod(world.job("prepare"), phase="Pending", conditions=[condition])
        world.settle()

    return act


def refused(message: str) -> Callable[[Any], None]:
    def act(world: Any) -> None:
        preparing(world)
        world.pod_events = {world.job("prepare")["metadata"]["uid"]: f"Error creating: {message}"}
        world.settle()

    return act


def queued(world: Any) -> None:
    world.edit(queueName="gpus")
    world.settle()


def too_large(world: Any) -> None:
    world.edit(labels=[f"{number:04}" + "x" * 250 for number in range(1000)])
    world.settle()


def not_allowed(world: Any) -> None:
    world.defaults = replace(world.defaults, allowed_images=("registry.example/",))
    world.edit(image="elsewhere.example/trainer:1")
    world.settle()


STATES: list[tuple[Callable[[Any], None], str, str, Seen]] = [
    (nothing, "", "", "InProgress"),
    (preparing, "Preparing", "Preparing", "InProgress"),
    (training, "Training", "Training", "InProgress"),
    (published, "Succeeded", "Published", "Current"),
    (reused, "Succeeded", "Reused", "Current"),
    (reverted, "Succeeded", "Reused", "Current"),
    (gate_failed, "Failed", "GateFailed", "Failed"),
    (crashed_once, "Training", "Retrying", "InProgress"),
    (disrupted, "Training", "Retrying", "InProgress"),
    (stuck, "Training", "Retrying", "InProgress"),
    (suspended, "Suspended", "Suspended", "InProgress"),
    (resumed, "Training", "Training", "InProgress"),
    (replaced, "Preparing", "Preparing", "InProgress"),
    (forbidden, "Waiting", "WaitingForRun", "InProgress"),
    (edited_after_it_was_done, "Preparing", "Preparing", "InProgress"),
    (lost, "Preparing", "Preparing", "InProgress"),
    (named_again, "Waiting", "WaitingForRun", "InProgress"),
    (waiting_for("ErrImagePull", "no such image"), "Preparing", "ImagePullFailed", "InProgress"),
    (waiting_for(UNSTARTABLE, 'secret "s3" not found'), "Preparing", "MissingSecret", "InProgress"),
    (waiting_for(UNSTARTABLE, 'configmap "x" not found'), "Preparing", "MissingConfigMap", "InProgress"),
    (waiting_for(UNSTARTABLE, "what"), "Preparing", "ConfigError", "InProgress"),
    (unschedulable("1 Insufficient cpu."), "Preparing", "Unschedulable", "InProgress"),
    (unschedulable('persistentvolumeclaim "d" not found'), "Preparing", "MissingVolumeClaim", "InProgress"),
    (refused("exceeded quota: q"), "Preparing", "QuotaExceeded", "InProgress"),
    (refused('serviceaccount "x" not found'), "Preparing", "MissingServiceAccount", "InProgress"),
    (refused('violates PodSecurity "restricted:latest"'), "Preparing", "PodRefused", "InProgress"),
    (failing("prepare", ExitCode.INVALID_DATA), "Failed", "InvalidData", "Failed"),
    (failing("prepare", ExitCode.STORAGE_DENIED), "Failed", "StorageDenied", "Failed"),
    (failing("train", ExitCode.GPU_OUT_OF_MEMORY), "Failed", "GpuOutOfMemory", "Failed"),
    (failing("train", ExitCode.LOSS_NOT_FINITE), "Failed", "LossNotFinite", "Failed"),
    (queued, "Queued", "Queued", "InProgress"),
    (too_large, "Failed", "InvalidSpec", "Failed"),
    (not_allowed, "Failed", "ImageNotAllowed", "Failed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bring", "phase", "reason", "seen"), STATES, ids=[f"{row[2] or 'nothing'}-{n}" for n, row in enumerate(STATES)]
)
def test_what_is_seen_is_the_truth(
    world: Any, bring: Callable[[Any], None], phase: str, reason: str, seen: Seen
) -> None:
    bring(world)
    assert kstatus(world) == seen
    assert waited_for(world) is (seen == "Current")
    if not reason:
        return
    assert (world.status["phase"], world.ready["reason"]) == (phase, reason)
    assert world.status["observedGeneration"] == world.generation
    ready, others = world.ready, [world.condition(type_) for type_ in ("Reconciling", "Stalled")]
    assert ready["message"].endswith((".", "…", "?")) and len(ready["message"]) > 20
    for condition in filter(None, others):
        # The same words wherever somebody looks; there only while it is true.
        assert condition["status"] == "True"
        assert (condition["reason"], condition["message"]) == (ready["reason"], ready["message"])
    assert all(c["observedGeneration"] == world.generation for c in world.status["conditions"])
    # An edit is seen at once as not done, before any operator has looked.
    world.edit(ttlSecondsAfterFinished=7)
    assert kstatus(world) == "InProgress" and not waited_for(world)


def test_every_reason_of_the_table_is_said_in_another_sentence(make_world: Any) -> None:
    said: dict[str, str] = {}
    for bring, _, reason, _ in STATES[1:]:
        world = make_world()
        bring(world)
        other = said.setdefault(world.ready["message"], reason)
        assert other == reason, f"{reason} and {other} say the same"


@pytest.mark.parametrize(
    ("refusal", "seen", "reason"),
    [
        (Refusal("spec.template: Invalid value."), "Failed", "InvalidSpec"),
        (Refusal("exceeded quota: jobs.", quota_exceeded=True), "InProgress", "QuotaExceeded"),
        (Refusal("a webhook says: exceeded quota."), "Failed", "InvalidSpec"),
    ],
)
def test_what_the_cluster_refuses_is_seen_and_tried_again(
    world: Any, refusal: Refusal, seen: Seen, reason: str
) -> None:
    preparing(world)
    before = world.status
    world.refused = refusal
    plan = world.step()
    assert kstatus(world) == seen and not waited_for(world)
    assert world.ready["reason"] == reason
    assert world.ready["message"] == f"The cluster refuses what the run needs: {refusal.message}"
    assert plan.requeue_after_s == world.defaults.refused_retry_s
    assert not (plan.applies or plan.deletes or plan.patches), "what was refused is not sent again at once"
    assert world.status["currentRun"] == before["currentRun"], "nothing is forgotten"
    assert world.step().status is None, "it is said once"


def test_a_spec_that_cannot_be_read_is_seen_and_forgets_nothing(world: Any) -> None:
    preparing(world)
    resource = world.resource()
    plan = plan_unreadable(resource.meta, {"spec": {}}, resource.status, "spec.x: no.", world.now)
    run, world.status = world.status["currentRun"], dict(plan.status or {})
    assert kstatus(world) == "Failed" and not waited_for(world)
    assert (world.ready["reason"], world.ready["message"]) == ("InvalidSpec", "spec.x: no.")
    assert world.status["currentRun"] == run
    assert [event.reason for event in plan.events] == ["InvalidSpec"] and plan.requeue_after_s is None


def test_in_a_namespace_that_is_being_deleted_nothing_is_done(world: Any) -> None:
    world.namespace_ending = True
    assert world.plan().empty


def test_a_transition_time_moves_only_with_the_status(world: Any) -> None:
    preparing(world)
    since = world.ready["lastTransitionTime"]
    training_reached = world
    training(training_reached)
    assert world.ready["lastTransitionTime"] == since, "it was False, and is"
    world.train_ends()
    world.settle()
    assert world.ready["lastTransitionTime"] > since
