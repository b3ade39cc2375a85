"""What counts of a pod is the container that Luthier made, whatever admission has put beside it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from luthier_api.exitcodes import ExitCode
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_operator.manifests.jobs import job as job_manifest
from luthier_operator.manifests.pods import metadata

pytestmark = pytest.mark.unit

RUNS: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def with_proxy(world: Any, stage: str, state: dict[str, Any] = RUNS, phase: str = "Running") -> None:
    """Let the pods of a stage end as its work has, beside a proxy that is in this state; their Job has not ended."""
    job = world.job(stage, live=False)
    job["status"].pop("conditions", None)
    for pod in world.pods_of(job):
        (main,) = pod["status"]["containerStatuses"]
        pod["status"]["containerStatuses"] = [{"name": "istio-proxy", "state": state}, {**main, "name": "main"}]
        pod["status"]["phase"] = phase


def wait(world: Any) -> None:
    world.now += timedelta(seconds=15)
    world.settle()


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_run_whose_pods_never_end_for_a_proxy_is_prepared_trained_and_published_and_its_jobs_are_ended(
    world: Any, nodes: int
) -> None:
    world.edit(numNodes=nodes)
    world.settle()
    world.prepare_ends()
    with_proxy(world, "prepare")
    world.settle()
    assert world.job("train"), "the result of prepare is taken at once"
    wait(world)
    assert not world.job("prepare", live=False)
    world.train_ends()
    with_proxy(world, "train")
    world.settle()
    assert world.status["phase"] == "Succeeded"
    wait(world)
    assert not world.jobs and world.events.count("SidecarRunning") == 2
    assert world.status["artifact"]["version"] == "v1" and len(world.trained) == 1


def test_the_sentence_names_the_container_and_the_way_out(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    with_proxy(world, "prepare")
    world.settle()
    world.now += timedelta(seconds=15)
    (note,) = [event for event in world.plan().events if event.reason == "SidecarRunning"]
    assert "istio-proxy" in note.message and "podMetadata" in note.message and note.warning


def test_a_proxy_that_ends_in_a_moment_is_left_the_time(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    with_proxy(world, "prepare")
    world.settle()
    assert world.job("prepare", live=False) and world.plan().requeue_after_s <= 10
    world.finish(world.job("prepare", live=False), "Complete")
    wait(world)
    assert world.job("prepare", live=False) and "SidecarRunning" not in world.events


def test_a_proxy_that_fails_after_the_work_is_done_does_not_fail_the_run(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends()
    with_proxy(world, "train", {"terminated": {"exitCode": 255}}, "Failed")
    world.finish(world.job("train"), "Failed", "BackoffLimitExceeded")
    world.settle()
    assert world.status["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("code", "phase", "failed"), [(ExitCode.CRASHED, "Preparing", 1), (ExitCode.LOSS_NOT_FINITE, "Failed", 1)]
)
def test_a_failure_beside_a_proxy_is_counted_once_and_tried_again_as_without_one(
    world: Any, code: ExitCode, phase: str, failed: int
) -> None:
    world.settle()
    world.prepare_ends()
    world.settle()
    before = world.job("train")["metadata"]["uid"]
    (pod,) = world.running(world.job("train"))
    world.end_pod(pod, code)
    with_proxy(world, "train")
    world.settle()
    wait(world)
    assert world.status["attempts"]["failed"] == failed
    job = world.job("train", live=False)
    if phase == "Failed":
        assert job is None and world.status["phase"] == "Failed" and world.ready["reason"] == "LossNotFinite"
    else:
        assert job["metadata"]["uid"] != before and job["spec"]["backoffLimit"] == world.spec.backoff_limit - 1


def test_a_native_sidecar_is_no_reason_to_end_a_job(world: Any) -> None:
    world.settle()
    world.prepare_ends()
    job = world.job("prepare", live=False)
    (pod,) = world.pods_of(job)
    pod["status"]["initContainerStatuses"] = [{"name": "istio-proxy", "state": RUNS}]
    world.settle()
    wait(world)
    assert world.job("prepare", live=False) and "SidecarRunning" not in world.events


def test_pod_metadata_reaches_every_pod_and_never_takes_the_place_of_luthier_s_own(world: Any, make_spec: Any) -> None:
    wanted = {"labels": {"sidecar.istio.io/inject": "false", "app.kubernetes.io/component": "mine"}}
    spec = make_spec(podMetadata={**wanted, "annotations": {"linkerd.io/inject": "disabled"}})
    meta = world.resource().meta
    made = job_manifest(meta, spec, stage="prepare", run="r-1", spec_hash="", resolved=None, defaults=world.defaults)[
        "spec"
    ]["template"]["metadata"]
    assert made["labels"]["sidecar.istio.io/inject"] == "false" and made["annotations"]["linkerd.io/inject"]
    assert made["labels"]["app.kubernetes.io/component"] == "prepare"
    serving = ModelDeploymentSpec.model_validate({"model": {"fineTuneJobRef": {"name": "a"}}, "podMetadata": wanted})
    assert metadata(serving.pod_metadata, {})["labels"]["sidecar.istio.io/inject"] == "false"
    with pytest.raises(ValidationError):
        make_spec(podMetadata={"labels": {"x": "no label value!"}})
