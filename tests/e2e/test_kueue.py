"""Runs that wait in a real Kueue queue with room for one training: in turn, preempted, suspended, and lost for a queue.

Kueue comes while the operator runs, and goes again with this module: what it decides is Kueue's, what is looked at here
is what a user reads of it, that nothing is lost, and that `spec.suspend` of a queued Job is never the operator's.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from luthier_api.conditions import find_condition
from luthier_api.finetunejob import FineTuneJobStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_dev import kueue
from luthier_dev.setup import make_namespace
from luthier_dev.waiting import wait_until
from support.e2e.stories import Site, Training, apply, finetunejob, upload

pytestmark = pytest.mark.e2e

NAMESPACE = "t-kueue"
QUEUE = "team"
URGENT = "t-kueue-urgent"
KUEUE = "kueue.x-k8s.io/v1beta2"
# A training asks for 200m, a prepare for 50m: two that prepare fit beside one that trains, a second training does not.
FULL = "insufficient unused quota for cpu"
ROOM = [{"name": "cpu", "nominalQuota": "300m"}, {"name": "memory", "nominalQuota": "64Gi"}]


def local_queue(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": KUEUE, "kind": "LocalQueue", "metadata": metadata, "spec": {"clusterQueue": NAMESPACE}}


def queues() -> list[dict[str, Any]]:
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": [{"name": NAMESPACE, "resources": ROOM}]}]
    preemption = {"withinClusterQueue": "LowerPriority"}
    return [
        {"apiVersion": KUEUE, "kind": "ResourceFlavor", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": KUEUE,
            "kind": "ClusterQueue",
            "metadata": {"name": NAMESPACE},
            "spec": {"namespaceSelector": {}, "preemption": preemption, "resourceGroups": groups},
        },
        local_queue(QUEUE),
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": URGENT},
            "value": 1000,
            "preemptionPolicy": "Never",  # only Kueue is to make room
        },
    ]


@pytest.fixture(scope="module")
def queued(site: Site) -> Iterator[Site]:
    """The cluster with Kueue, its queues, and a namespace to use them from."""
    site.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=300)
    upload(site)
    ours = kueue.install(site.cluster)
    make_namespace(site.cluster, site.storage, NAMESPACE)
    site.kubectl.apply(*queues())
    yield site
    site.kubectl("delete", "namespace", NAMESPACE, timeout_s=300)
    site.kubectl("delete", "priorityclass", URGENT)
    if ours:
        kueue.remove(site.cluster)


def submit(site: Site, name: str, epochs: int = 1, **spec: Any) -> Training:
    """Apply a FineTuneJob that waits in the queue."""
    run = Training(site, NAMESPACE, name, f"e2e-{secrets.token_hex(4)}")
    everything = {"queueName": QUEUE, "checkpoint": {"everySteps": 100_000}, "export": ["safetensors"], **spec}
    document = finetunejob(site, name, run.folder, **everything)
    document["spec"]["hyperparameters"] |= {"epochs": epochs, "seed": sum(name.encode())}
    apply(site, NAMESPACE, document)
    return run


def told(status: FineTuneJobStatus, type_: ConditionType) -> tuple[str, str, str]:
    """Status, reason and message of a condition."""
    found = find_condition(status.conditions, type_)
    return (found.status, found.reason, found.message) if found else ("", "", "")


def assert_suspend_is_kueues(job: dict[str, Any]) -> None:
    """The operator wrote the Job once, when it made it, and what it said of `suspend` has been taken over since."""
    fields = job["metadata"]["managedFields"]
    ours = [entry for entry in fields if entry["manager"] == "luthier"]
    assert [entry["time"] for entry in ours] == [job["metadata"]["creationTimestamp"]]
    owners = {entry["manager"] for entry in fields if "f:suspend" in entry["fieldsV1"].get("f:spec", {})}
    assert owners and "luthier" not in owners


def test_runs_take_turns_and_a_more_urgent_one_goes_first(queued: Site) -> None:
    first = submit(queued, "first", epochs=12)
    first.until_step(3)
    assert told(first.status, ConditionType.ADMITTED)[:2] == ("True", Reason.ADMITTED)
    assert_suspend_is_kueues(first.job)

    second, urgent = submit(queued, "second"), submit(queued, "urgent", priorityClassName=URGENT)
    waits = second.until(lambda s: FULL in told(s, ConditionType.READY)[2], "without room")
    assert waits.phase == "Queued" and second.job["spec"]["suspend"]
    _, reason, words = told(waits, ConditionType.READY)
    assert reason == Reason.QUEUED and QUEUE in words
    assert told(waits, ConditionType.ADMITTED) == ("False", reason, words)

    assert "Preempted" in first.until_reason(Reason.REQUEUED)
    urgent.until_published()
    stopped_at = first.checkpoints()[-1]
    assert stopped_at >= 3, "the checkpoint of the grace period"
    assert first.until_resumed(1) == stopped_at
    attempts = first.status.attempts
    assert attempts and (attempts.failed, attempts.preempted) == (0, 1)
    assert_suspend_is_kueues(first.job)
    first.until_published()
    second.until_published()


@pytest.mark.slow
def test_a_run_that_is_suspended_frees_its_place_and_goes_on_later(queued: Site) -> None:
    run = submit(queued, "rested", epochs=8)
    run.until_step(3)
    before = run.job["metadata"]["uid"]
    run.suspend(True)

    def reserved() -> str | None:
        status = queued.kubectl.get("clusterqueue.kueue.x-k8s.io", NAMESPACE)["status"]
        return f"{status['reservingWorkloads']} hold quota" if status["reservingWorkloads"] else None

    wait_until(reserved, "the quota to be free", 120, interval_s=0.3)
    run.until_reason(Reason.SUSPENDED, 10)
    # The quota is free as soon as the Job is deleted; its pod then has its grace for the checkpoint.
    wait_until(lambda: None if run.checkpoints() else "none", "the checkpoint", 120, interval_s=0.3)
    (stopped_at,) = run.checkpoints()
    run.suspend(False)
    assert run.until_resumed(3) == stopped_at
    assert run.job["metadata"]["uid"] != before
    assert_suspend_is_kueues(run.job)
    attempts = run.until_published().attempts
    assert attempts is None or (attempts.failed, attempts.preempted) == (0, 0)


def test_a_queue_that_does_not_exist_is_named_within_ten_seconds(queued: Site) -> None:
    run = submit(queued, "lost", queueName="nobody")
    words = run.until_reason(Reason.QUEUE_NOT_FOUND, timeout_s=10)
    assert "LocalQueue nobody doesn't exist" in words and NAMESPACE in words
    assert told(run.status, ConditionType.RECONCILING)[0] == "True", "it heals by itself"
    queued.kubectl.apply(local_queue("nobody"))
    run.until_published()


@pytest.mark.slow
def test_where_kueue_holds_jobs_that_name_no_queue_it_is_named_and_nobody_fights_it(queued: Site) -> None:
    kueue.manage_all_jobs(queued.cluster, NAMESPACE)
    run = submit(queued, "held", queueName=None)
    assert "manageJobsWithoutQueueName" in run.until_reason(Reason.QUEUED, timeout_s=60)

    def version() -> list[str]:
        found = queued.kubectl.get("jobs", "--namespace", NAMESPACE, "-l", "luthier.dev/finetunejob=held")["items"]
        return [job["metadata"]["resourceVersion"] for job in found if job["spec"]["suspend"]]

    before = version()
    time.sleep(5)  # two writers of one field would have written it some fifty times
    assert version() == before and len(before) == 1
    patch = json.dumps({"spec": {"queueName": QUEUE}})
    queued.kubectl("patch", "finetunejob", "held", "--namespace", NAMESPACE, "--type=merge", "-p", patch)
    run.until_published()
