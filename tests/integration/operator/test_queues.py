"""A run in a queue, against a real API server: the tests are Kueue, which is installed while the operator runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from luthier_dev.waiting import wait_until

pytestmark = pytest.mark.integration

CRD = "workloads.kueue.x-k8s.io"
FULL = "couldn't assign flavors to pod set main: insufficient unused quota for cpu"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def version(name: str, *, storage: bool) -> dict[str, Any]:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": ANYTHING},
        "subresources": {"status": {}},
    }


DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": CRD, "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload", "listKind": "WorkloadList"},
        "versions": [version("v1beta1", storage=False), version("v1beta2", storage=True)],
    },
}


class Kueue:
    """Kueue's hands."""

    def __init__(self, cluster: Any, namespace: Any) -> None:
        self._cluster, self._namespace = cluster, namespace

    def install(self) -> None:
        self._cluster.kubectl("apply", "-f", "-", stdin=json.dumps(DEFINITION))
        self._cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD}")
        # The API server answers for a kind a little after it says that it is established.
        wait_until(lambda: None if self._is_served() else "not served", CRD, timeout_s=30, interval_s=0.1)

    def _is_served(self) -> bool:
        return "workloads" in self._cluster.kubectl("api-resources", "--api-group=kueue.x-k8s.io", "-o", "name")

    def remove(self) -> None:
        self._cluster.kubectl("delete", "crd", CRD, "--ignore-not-found")

    def take_up(self, job: dict[str, Any], message: str) -> None:
        name = job["metadata"]["name"]
        labels = {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}
        manifest = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {"name": name, "labels": labels},
        }
        self._namespace.apply(manifest)
        self.say(job, QuotaReserved=("False", "Pending", message))

    def say(self, job: dict[str, Any], **conditions: tuple[str, str, str]) -> None:
        rows = [
            {"type": kind, "status": s, "reason": r, "message": m, "lastTransitionTime": "2026-01-01T00:00:00Z"}
            for kind, (s, r, m) in conditions.items()
        ]
        self._namespace.merge("workload", job["metadata"]["name"], {"status": {"conditions": rows}}, status=True)

    def let_in(self, job: dict[str, Any]) -> None:
        self.say(job, QuotaReserved=("True", "QuotaReserved", "Quota reserved"), Admitted=("True", "Admitted", "In"))
        self.suspend(job, False)

    def stop(self, job: dict[str, Any]) -> None:
        self.say(
            job,
            QuotaReserved=("False", "Pending", FULL),
            Admitted=("False", "NoReservation", "Out"),
            Evicted=("True", "Preempted", "Preempted to accommodate a workload"),
        )
        self.suspend(job, True)

    def suspend(self, job: dict[str, Any], wanted: bool) -> None:
        self._namespace.merge("job", job["metadata"]["name"], {"spec": {"suspend": wanted}})


@pytest.fixture
def kueue(cluster: Any, namespace: Any) -> Iterator[Kueue]:
    kueue = Kueue(cluster, namespace)
    kueue.remove()
    yield kueue
    kueue.remove()


def await_job(namespace: Any, stage: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [job for job in namespace.all("jobs") if job["metadata"]["name"].endswith(f"-{stage}")]

    namespace.until(f"the {stage} Job", found)
    return found()[0]


def ready(namespace: Any) -> dict[str, Any]:
    conditions = namespace.get("ftj", "reviews").get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Ready"), {})


def test_a_run_waits_is_let_in_is_stopped_and_rests_as_kueue_and_the_user_say(
    namespace: Any, kueue: Kueue, own_operator: Any
) -> None:
    own_operator.start()
    namespace.submit(queueName="gpus")
    prepare = await_job(namespace, "prepare")
    assert prepare["spec"]["suspend"] and prepare["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    status = namespace.await_reason("ftj", "reviews", "QueueNotFound", timeout_s=10)["status"]
    assert "Kueue is not installed" in json.dumps(status["conditions"])

    kueue.install()
    kueue.take_up(prepare, FULL)
    namespace.await_reason("ftj", "reviews", "Queued")
    namespace.until("Kueue's words", lambda: FULL in ready(namespace)["message"])
    kueue.let_in(prepare)
    namespace.prepare_ends()

    train = await_job(namespace, "train")
    kueue.take_up(train, FULL)
    namespace.await_reason("ftj", "reviews", "Queued")
    kueue.let_in(train)
    pod = namespace.await_pod("train")
    namespace.play(pod, "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    namespace.await_reason("ftj", "reviews", "Training")

    kueue.stop(train)
    status = namespace.await_reason("ftj", "reviews", "Requeued")["status"]
    assert status["attempts"]["preempted"] == 1 and not status["attempts"].get("failed")
    kueue.let_in(train)
    namespace.await_reason("ftj", "reviews", "Training")
    fields = json.loads(
        namespace.kubectl("get", "job", train["metadata"]["name"], "-o", "json", "--show-managed-fields")
    )["metadata"]["managedFields"]
    owners = [e["manager"] for e in fields if "f:suspend" in e["fieldsV1"].get("f:spec", {})]
    assert owners and "luthier" not in owners

    namespace.submit(queueName="gpus", suspend=True)
    namespace.await_reason("ftj", "reviews", "Suspended")
    namespace.until("the Job to go", lambda: namespace.jobs == [prepare["metadata"]["name"]])
    assert "patch " not in own_operator.log, "a Job in a queue was written to"
