"""What is read of the cluster's objects, and what becomes of what is missing or odd in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luthier_operator.model.parse import job_view, rayservice_view, workload_view
from luthier_operator.model.timestamps import parse_time, rfc3339, rfc3339_if_known, seconds_since

pytestmark = pytest.mark.unit

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01T13:00:00+01:00", NOON),
        ("2026-01-01T12:00:00", NOON),
        ("2026-01-01T12:00:00.250000Z", NOON + timedelta(seconds=0.25)),
        ("", None),
        (None, None),
        ("yesterday", None),
    ],
)
def test_a_time_is_read_or_unknown_and_always_has_a_zone(text: str | None, moment: datetime | None) -> None:
    found = parse_time(text)
    assert found == moment
    assert found is None or found.tzinfo is not None


def test_a_time_is_written_in_utc_and_whole_seconds() -> None:
    assert rfc3339(NOON + timedelta(seconds=0.9)) == "2026-01-01T12:00:00Z"
    assert rfc3339_if_known(None) is None and rfc3339_if_known(NOON) == rfc3339(NOON)


def test_a_time_that_is_not_known_is_no_time_ago() -> None:
    assert seconds_since(None, NOON) == 0 and seconds_since(NOON, NOON + timedelta(seconds=3)) == 3


def rayservice(status: dict[str, Any]) -> Any:
    return rayservice_view({"metadata": {"name": "r", "uid": "u"}, "spec": {}, "status": status})


def cluster(name: str, application: str, workers: int) -> dict[str, Any]:
    return {
        "rayClusterName": name,
        "rayClusterStatus": {"desiredWorkerReplicas": workers, "readyWorkerReplicas": workers - 1},
        "applicationStatuses": {"rev-1": {"status": application, "message": ""}},
    }


def test_while_a_second_ray_cluster_comes_up_its_applications_are_seen_and_the_workers_of_the_first() -> None:
    status = {
        "activeServiceStatus": cluster("old", "RUNNING", 3),
        "pendingServiceStatus": cluster("new", "DEPLOYING", 5),
    }
    view = rayservice(status)
    assert view.upgrading and view.applications["rev-1"].status == "DEPLOYING"
    assert (view.workers, view.ready_workers) == (3, 2)


def test_with_one_ray_cluster_that_one_is_seen_be_it_pending_or_active() -> None:
    for field in ("activeServiceStatus", "pendingServiceStatus"):
        view = rayservice({field: cluster("only", "RUNNING", 2)})
        assert not view.upgrading and view.applications["rev-1"].status == "RUNNING" and view.workers == 2


@pytest.mark.parametrize(("reason", "invalid"), [("RayServiceValidationFailed", "no name"), ("Other", None)])
def test_why_kuberay_does_not_accept_a_rayservice_is_kept(reason: str, invalid: str | None) -> None:
    condition = {"type": "Ready", "status": "False", "reason": reason, "message": "no name"}
    assert rayservice({"conditions": [condition]}).invalid == invalid


def test_the_cause_of_a_failed_application_is_found_in_its_deployments() -> None:
    application = {
        "status": "DEPLOY_FAILED",
        "message": "see below",
        "serveDeploymentStatuses": {"Revision": {"message": "LoadError: IntegrityError: a byte differs."}},
    }
    status = {"activeServiceStatus": {"rayClusterName": "c", "applicationStatuses": {"rev-1": application}}}
    assert rayservice(status).applications["rev-1"].message == "see below\nLoadError: IntegrityError: a byte differs."


def workload(**conditions: tuple[str, str]) -> Any:
    rows = [
        {"type": kind, "status": status, "reason": "R", "message": text, "lastTransitionTime": rfc3339(NOON)}
        for kind, (status, text) in conditions.items()
    ]
    labels = {"kueue.x-k8s.io/job-uid": "job-1"}
    return workload_view({"metadata": {"name": "w", "labels": labels}, "status": {"conditions": rows}})


def test_a_workload_that_was_admitted_and_is_evicted_is_not_admitted() -> None:
    assert workload(Admitted=("True", "in"), QuotaReserved=("True", "yes")).admitted
    view = workload(Admitted=("True", "in"), Evicted=("True", "for another"))
    assert not view.admitted and view.evicted == "for another" and view.evicted_at == NOON
    again = workload(Admitted=("True", "in"), Evicted=("False", "for another"))
    assert again.admitted and again.evicted is None and again.evicted_at is None


@pytest.mark.parametrize(("mode", "nodes"), [("Indexed", 4), ("NonIndexed", 1)])
def test_the_gpus_of_all_pods_of_a_job_are_counted_and_its_nodes(mode: str, nodes: int) -> None:
    container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    spec = {
        "parallelism": 4,
        "completions": 4,
        "completionMode": mode,
        "template": {"spec": {"containers": [{"name": "proxy"}, container]}},
    }
    view = job_view({"metadata": {"namespace": "team", "name": "j", "uid": "u"}, "spec": spec})
    assert (view.gpus, view.nodes) == (8, nodes)
