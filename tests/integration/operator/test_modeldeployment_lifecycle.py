"""A ModelDeployment's life against a real API server and KubeRay's real CRD; the tests are KubeRay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.operator.kuberay import CRD, MODELDEPLOYMENT, Server, install_kuberay

pytestmark = pytest.mark.integration


@pytest.fixture
def kuberay(cluster: Any) -> None:
    install_kuberay(cluster)


@pytest.fixture
def server(namespace: Any) -> Iterator[Server]:
    played = Server(namespace)
    yield played
    played.close()


def deploy(namespace: Any) -> None:
    """Publish a version, and wait for the RayService that is to serve it."""
    namespace.apply(MODELDEPLOYMENT)
    namespace.submit()
    namespace.run_through()
    namespace.until("the server", lambda: namespace.all("rayservice"))


def test_without_kuberay_it_says_what_to_install_and_goes_on_when_that_is_done(
    operator: Any, cluster: Any, namespace: Any
) -> None:
    cluster.kubectl("delete", "crd", CRD, "--ignore-not-found")
    namespace.apply(MODELDEPLOYMENT)
    status = namespace.await_reason("mdep", "reviews", "KubeRayNotInstalled")["status"]
    assert "KubeRay is not installed" in json.dumps(status["conditions"])
    install_kuberay(cluster)
    status = namespace.await_reason("mdep", "reviews", "WaitingForModel")["status"]
    assert "no FineTuneJob reviews" in json.dumps(status["conditions"])


def test_it_waits_for_the_model_serves_it_and_rolls_a_new_version_out(
    operator: Any, kuberay: None, namespace: Any, server: Server
) -> None:
    namespace.apply(MODELDEPLOYMENT)
    namespace.submit()
    namespace.await_reason("mdep", "reviews", "WaitingForModel")
    namespace.run_through()
    namespace.until("the server", lambda: namespace.all("rayservice"))
    assert server.weights == {"v1": 100}
    namespace.await_reason("mdep", "reviews", "Deploying")
    server.tell()
    namespace.await_reason("mdep", "reviews", "Serving")
    status = namespace.get("mdep", "reviews")["status"]
    assert (status["currentVersion"], status["readyReplicas"]) == ("v1", 1)
    assert status["url"] == f"http://reviews-serve-svc.{namespace.name}.svc:8000"
    first = server.raw["spec"]["rayClusterConfig"]

    namespace.submit(hyperparameters={"epochs": 1})
    namespace.run_through("b", "v2")
    namespace.until("the second revision", lambda: server.weights == {"v1": 100, "v2": 0})
    namespace.await_reason("mdep", "reviews", "RollingOut")
    server.tell()
    namespace.until("the shift", lambda: server.weights.get("v2") == 100)
    server.tell()
    namespace.until("the replicas to load it", lambda: server.weights == {"v2": 100})
    server.tell()
    namespace.until("the canary to go", lambda: server.layout.canary is None)
    server.tell()
    namespace.until("v2", lambda: namespace.get("mdep", "reviews")["status"]["currentVersion"] == "v2")
    assert server.raw["spec"]["rayClusterConfig"] == first, "a new version must not cost a new Ray cluster"

    namespace.submit()  # reverted: no Job, and the server goes back
    namespace.until("the first version beside it", lambda: server.weights == {"v2": 100, "v1": 0})
    server.tell()
    namespace.until("the shift back", lambda: server.weights.get("v1") == 100)


def test_a_version_that_does_not_start_changes_nothing_for_those_who_ask(
    operator: Any, kuberay: None, namespace: Any, server: Server
) -> None:
    deploy(namespace)
    server.tell()
    namespace.await_reason("mdep", "reviews", "Serving")
    namespace.submit(hyperparameters={"epochs": 1})
    namespace.run_through("b", "v2")
    namespace.until("the second revision", lambda: "v2" in server.weights)
    trace = "ray.exceptions.RayTaskError: Traceback\n  errors.LoadError: IntegrityError: model.onnx differs.\n"
    server.tell(broken="v2", message=trace)
    namespace.await_reason("mdep", "reviews", "RevisionFailed")
    namespace.until("the broken one to go", lambda: server.weights == {"v1": 100})
    conditions = {c["type"]: c for c in namespace.get("mdep", "reviews")["status"]["conditions"]}
    assert conditions["Available"]["status"] == "True"
    assert "model.onnx differs." in conditions["Stalled"]["message"]
    server.tell()
    namespace.until("rest", lambda: server.weights == {"v1": 100})


def test_a_stranger_s_rayservice_of_the_same_name_is_not_touched(
    operator: Any, kuberay: None, namespace: Any, server: Server
) -> None:
    theirs = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "reviews"},
        "spec": {
            "serveConfigV2": "applications: []",
            "rayClusterConfig": {
                "headGroupSpec": {
                    "rayStartParams": {},
                    "template": {"spec": {"containers": [{"name": "h", "image": "i"}]}},
                }
            },
        },
    }
    namespace.apply(theirs)
    before = server.raw
    namespace.submit()
    namespace.run_through()
    namespace.apply(MODELDEPLOYMENT)
    namespace.await_reason("mdep", "reviews", "ConfigError")
    assert server.raw == before


def test_suspend_removes_the_server_and_deletion_leaves_nothing(
    operator: Any, kuberay: None, namespace: Any, server: Server
) -> None:
    deploy(namespace)
    namespace.merge("mdep", "reviews", {"spec": {"suspend": True}})
    namespace.await_reason("mdep", "reviews", "Suspended")
    namespace.until("the server to go", lambda: not namespace.all("rayservice"))
    namespace.merge("mdep", "reviews", {"spec": {"suspend": False}})
    namespace.until("the server again", lambda: namespace.all("rayservice"))
    namespace.kubectl("delete", "mdep", "reviews")
    namespace.until("the server to go", lambda: not namespace.all("rayservice"))


def test_why_kuberay_may_not_create_a_pod_is_said_within_ten_seconds(
    operator: Any, kuberay: None, namespace: Any, server: Server
) -> None:
    deploy(namespace)
    status = {"pendingServiceStatus": {"rayClusterName": "reviews-abc"}}
    namespace.merge("rayservice", "reviews", {"status": status}, status=True)
    # In the words of KubeRay 1.6.
    text = (
        'Failed to create head Pod team/reviews-abc-head, pods "reviews-abc-head" is forbidden: exceeded quota: team, '
        "requested: pods=1, used: pods=0, limited: pods=0"
    )
    about = {"kind": "RayCluster", "namespace": namespace.name, "name": "reviews-abc", "uid": "u"}
    event = {"involvedObject": about, "type": "Warning", "reason": "FailedToCreateHeadPod", "message": text}
    namespace.apply({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "reviews-abc.1"}, **event})
    found = namespace.await_reason("mdep", "reviews", "QuotaExceeded", timeout_s=12)["status"]["conditions"]
    telling = next(condition for condition in found if condition["type"] == "Reconciling")
    assert "limited: pods=0" in telling["message"] and "Free some of that quota" in telling["message"]
    namespace.merge("rayservice", "reviews", {"status": {"pendingServiceStatus": None}}, status=True)
    server.tell()
    namespace.await_reason("mdep", "reviews", "Serving")
