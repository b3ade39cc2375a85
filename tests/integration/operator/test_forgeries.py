"""Objects that only look like the operator's: they are neither asked, nor believed, nor deleted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from support.operator.crowd import Crowd, ready, result
from support.operator.endpoints import Endpoint, answer, says

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_bug")]

Raw = dict[str, Any]


@pytest.fixture
def endpoints() -> Iterator[dict[str, Endpoint]]:
    """At addresses that no pod of another test has, for those are asked too."""
    found = {
        "honest": Endpoint("127.0.89.1", says(answer(step=60))),
        "forged": Endpoint("127.0.89.2", says(answer(step=99))),
    }
    yield found
    for endpoint in found.values():
        endpoint.close()


def test_objects_with_forged_labels_and_owners_are_neither_asked_nor_believed(
    operator: Any, namespace: Any, crowd: Crowd, endpoints: dict[str, Endpoint]
) -> None:
    honest, forged = endpoints["honest"], endpoints["forged"]
    (real,) = crowd.train("reviews").values()
    crowd.run(real, honest.address)
    namespace.until("its progress", lambda: crowd.status("reviews").get("progress", {}).get("percent") == 50)
    resource = namespace.get("ftj", "reviews")["metadata"]
    (job,) = [j["metadata"] for j in namespace.all("jobs") if j["metadata"]["name"].endswith("-train")]
    labels = {key: value for key, value in real["metadata"]["labels"].items() if "luthier" in key or "app" in key}
    odd = {"batch.kubernetes.io/job-completion-index": "9" * 5000}
    owners: dict[str, list[Raw]] = {
        "no-owner": [],
        "resource-as-owner": [owner("luthier.dev/v1alpha1", "FineTuneJob", resource)],
        "unknown-owner": [owner("batch/v1", "Job", {**job, "uid": "00000000-0000-0000-0000-000000000000"})],
    }
    for name, references in owners.items():
        metadata = {"name": name, "labels": labels, "annotations": odd, "ownerReferences": references}
        spec = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        namespace.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        if name != "unknown-owner":  # which the garbage collector removes
            crowd.run({"metadata": {"name": name}}, forged.address)
    asked = honest.asked
    namespace.until("the real pod to be asked", lambda: honest.asked >= asked + 4)
    assert forged.asked == 0
    assert crowd.status("reviews")["progress"]["percent"] == 50
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
    terminated = {"exitCode": 0, "message": result(runKey=job["annotations"]["luthier.dev/run-key"]), **times}
    namespace.play({"metadata": {"name": "no-owner"}}, "Succeeded", {"terminated": terminated})
    # The Job still runs, so it is the real pod's word that counts.
    namespace.end(
        real, 0, result(runKey=job["annotations"]["luthier.dev/run-key"], version="v7", uri="s3://m/versions/v7")
    )
    namespace.until("the version", lambda: crowd.status("reviews").get("artifact", {}).get("version") == "v7")


def test_a_job_that_cannot_be_the_operators_is_not_taken_for_one(operator: Any, namespace: Any, crowd: Crowd) -> None:
    crowd.submit("rests", suspend=True)
    namespace.await_reason("ftj", "rests", "Suspended")
    resource = namespace.get("ftj", "rests")["metadata"]
    for name, stage, run in (("forged", "train", "Not_A.Name"), ("x-train", "", "x"), ("y-prepare", "prepare", "y")):
        labels = {
            "app.kubernetes.io/managed-by": "luthier",
            "app.kubernetes.io/component": stage,
            "luthier.dev/finetunejob": "rests",
            "luthier.dev/run": run,
        }
        owners = [owner("luthier.dev/v1alpha1", "FineTuneJob", resource)]
        metadata = {
            "name": name,
            "labels": labels,
            "ownerReferences": owners,
            "annotations": {"luthier.dev/run-key": ""},
        }
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": pod}}}
        namespace.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    namespace.merge("ftj", "rests", {"spec": {"suspend": False}})
    crowd.pods("prepare", ["rests"])
    status = namespace.await_reason("ftj", "rests", "Preparing")["status"]
    assert status["currentRun"]["name"].startswith("rests-")
    assert Counter(namespace.jobs) >= Counter(["forged", "x-train", "y-prepare"]), "nothing foreign is deleted"


def test_somebody_elses_job_of_the_same_name_is_said_and_not_touched(
    operator: Any, namespace: Any, crowd: Crowd
) -> None:
    crowd.submit("reviews")
    crowd.pods("prepare", ["reviews"])
    (name,) = namespace.jobs
    namespace.kubectl("delete", "ftj", "reviews")
    namespace.until("the Job to go", lambda: not namespace.jobs)
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}},
    }
    namespace.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    crowd.submit("reviews")
    namespace.until("the sentence", lambda: "is not Luthier's; delete it" in ready(crowd.status("reviews"))["message"])
    (job,) = namespace.all("jobs")
    assert (
        job["spec"]["template"]["spec"]["containers"][0]["image"] == "i" and "deletionTimestamp" not in job["metadata"]
    )


def owner(api_version: str, kind: str, metadata: Raw) -> Raw:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
