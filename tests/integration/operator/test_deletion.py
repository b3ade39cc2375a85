"""Deletion and the limit of versions against the real API server, its garbage collector and its finalizers.

The node is played: storage is not there. What the pods do to it is tested in ../trainer/test_remove.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.documents import Failure, Removal, Removed, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason

pytestmark = pytest.mark.integration

FINALIZER = "luthier.dev/artifacts"


def removed(*versions: str, **kept: str) -> str:
    return Result(removed=Removed(removed=list(versions), kept=kept)).to_termination_message()


def document_of(pod: Any) -> Removal:
    return Removal.from_json(pod["metadata"]["annotations"]["luthier.dev/run-document"])


def delete(namespace: Any, *flags: str) -> None:
    namespace.kubectl("delete", "ftj", "reviews", "--wait=false", *flags)


def holds(resource: Any) -> bool:
    return FINALIZER in resource["metadata"].get("finalizers", [])


def until_gone(namespace: Any) -> None:
    namespace.until("the end of the FineTuneJob", lambda: not namespace.all("ftj"))


def events(namespace: Any) -> dict[str, str]:
    found = [event for event in namespace.all("events") if event["involvedObject"]["kind"] == "FineTuneJob"]
    return {event["reason"]: event["message"] for event in found}


def component(namespace: Any, name: str) -> list[Any]:
    return list(namespace.all("jobs", f"app.kubernetes.io/component={name}"))


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_deleted_while_it_trains_the_training_stops_then_its_versions_go_then_the_resource(
    operator: Any, namespace: Any, cascade: str
) -> None:
    namespace.submit(deletionPolicy="Delete")
    namespace.prepare_ends()
    namespace.await_pod("train")
    assert namespace.get("ftj", "reviews")["metadata"]["finalizers"] == [FINALIZER]
    delete(namespace, f"--cascade={cascade}")
    pod = namespace.await_pod("remove")
    (job,) = namespace.all("jobs")
    assert "ownerReferences" not in job["metadata"], "or the garbage collector would take it along"
    assert [each["metadata"]["name"] for each in namespace.all("pods")] == [pod["metadata"]["name"]]
    namespace.until("the status", lambda: namespace.get("ftj", "reviews")["status"]["phase"] == "Deleting")
    resource = namespace.get("ftj", "reviews")
    assert holds(resource)
    assert document_of(pod).origin.uid == resource["metadata"]["uid"] and document_of(pod).versions is None
    namespace.end(pod, 0, removed("v1", v2="The alias production points at it."))
    # In the foreground the garbage collector has a finalizer of its own there, and its own time.
    namespace.until("the release", lambda: not [each for each in namespace.all("ftj") if holds(each)])
    assert events(namespace)[Reason.REMOVED] == (
        "Versions removed from storage: v1. Kept: v2 (The alias production points at it)."
    )
    assert component(namespace, "remove")[0]["spec"]["ttlSecondsAfterFinished"] == 3600


def test_deleted_with_retain_all_goes_at_once_and_no_job_is_made(operator: Any, namespace: Any) -> None:
    namespace.submit()
    namespace.prepare_ends()
    namespace.await_pod("train")
    assert "finalizers" not in namespace.get("ftj", "reviews")["metadata"]
    delete(namespace)
    until_gone(namespace)
    namespace.until("the end of its Jobs", lambda: not namespace.all("jobs") and not namespace.all("pods"))
    assert Reason.DELETING not in events(namespace)


def test_a_removal_that_is_denied_says_why_and_retain_lets_the_resource_go(operator: Any, namespace: Any) -> None:
    namespace.submit(deletionPolicy="Delete")
    namespace.run_through()
    delete(namespace)
    denied = Failure(reason=Reason.STORAGE_DENIED, message="s3://models refuses to delete; allow s3:DeleteObject.")
    pod = namespace.await_pod("remove")
    namespace.end(pod, ExitCode.STORAGE_DENIED, Result(failure=denied).to_termination_message())
    status = namespace.await_reason("ftj", "reviews", "RemovalFailed")["status"]
    (ready,) = [each for each in status["conditions"] if each["type"] == "Ready"]
    assert "refuses to delete; allow s3:DeleteObject." in ready["message"]
    assert ready["message"].endswith(
        "To keep the versions and release the resource at once, set deletionPolicy to Retain."
    )
    assert [each["version"] for each in status["versions"]] == ["v1"]
    namespace.kubectl("annotate", "ftj", "reviews", "luthier.dev/retry=now")
    namespace.await_reason("ftj", "reviews", "Deleting")
    second = namespace.await_pod("remove")
    assert second["metadata"]["name"] != pod["metadata"]["name"]
    namespace.merge("ftj", "reviews", {"spec": {"deletionPolicy": "Retain"}})
    until_gone(namespace)
    namespace.until("the end of the removal", lambda: not component(namespace, "remove"))


def test_a_removal_that_the_cluster_refuses_says_why_and_the_way_out(operator: Any, namespace: Any) -> None:
    namespace.submit(deletionPolicy="Delete", suspend=True)
    namespace.await_reason("ftj", "reviews", "Suspended")
    namespace.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    namespace.until("the quota", lambda: "used" in namespace.get("quota", "none").get("status", {}))
    delete(namespace)
    status = namespace.await_reason("ftj", "reviews", "RemovalFailed")["status"]
    (ready,) = [each for each in status["conditions"] if each["type"] == "Ready"]
    assert "exceeded quota: none" in ready["message"] and "set deletionPolicy to Retain" in ready["message"]
    namespace.merge("ftj", "reviews", {"spec": {"deletionPolicy": "Retain"}})
    until_gone(namespace)


def test_a_resource_that_waits_to_have_its_versions_removed_does_not_hold_its_namespace(
    operator: Any, namespace: Any
) -> None:
    namespace.submit(deletionPolicy="Delete")
    namespace.run_through()
    namespace.kubectl("delete", "namespace", namespace.name, "--wait=false")
    until_gone(namespace)


def test_the_finalizer_follows_the_policy(operator: Any, namespace: Any) -> None:
    def finalizers() -> list[str]:
        return list(namespace.get("ftj", "reviews")["metadata"].get("finalizers", []))

    namespace.submit()
    namespace.run_through()
    assert finalizers() == []
    namespace.merge("ftj", "reviews", {"spec": {"deletionPolicy": "Delete"}})
    namespace.until("the finalizer", finalizers)
    namespace.merge("ftj", "reviews", {"spec": {"deletionPolicy": "Retain"}})
    namespace.until("no finalizer", lambda: not finalizers())


def test_over_the_limit_a_version_goes_unless_a_modeldeployment_serves_it(operator: Any, namespace: Any) -> None:
    # Other names than those that other tests' ModelDeployments serve from the same place, which keep those.
    namespace.submit(versionHistoryLimit=1)
    namespace.run_through("a", "d1")
    pin = {"model": {"fineTuneJobRef": {"name": "reviews", "version": "d1"}}}
    metadata = {"name": "pinned"}
    namespace.apply(
        {"apiVersion": "luthier.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": pin}
    )
    namespace.submit(versionHistoryLimit=1, hyperparameters={"learningRate": "0.001"})
    namespace.run_through("b", "d2")
    namespace.submit(versionHistoryLimit=1, hyperparameters={"learningRate": "0.002"})
    namespace.run_through("c", "d3")
    pod = namespace.await_pod("prune")
    assert document_of(pod).versions == ["d2"] and set(document_of(pod).in_use) & {"d1", "d2", "d3"} == {"d1"}
    namespace.end(pod, 0, removed("d2"))

    def known() -> list[str]:
        return [each["version"] for each in namespace.get("ftj", "reviews")["status"]["versions"]]

    namespace.until("d2 to be forgotten", lambda: known() == ["d3", "d1"])
    assert "d2" in events(namespace)[Reason.PRUNED]
    namespace.kubectl("delete", "modeldeployment", "pinned")
    second = namespace.await_pod("prune")
    assert document_of(second).versions == ["d1"]
    namespace.end(second, 0, removed("d1"))
    namespace.until("d1 to be forgotten", lambda: known() == ["d3"])
    assert namespace.ready_reason("ftj", "reviews") == "Published"
    owners = [job["metadata"]["ownerReferences"][0]["kind"] for job in component(namespace, "prune")]
    assert owners == ["FineTuneJob", "FineTuneJob"], "they go with the resource"

    namespace.submit(versionHistoryLimit=1)
    namespace.prepare_ends("a")
    namespace.train_ends("a", "d4")
    namespace.until("training anew", lambda: namespace.version == "d4")
