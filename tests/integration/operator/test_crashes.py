"""Killed, restarted or cut off from the API server: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def test_a_restart_over_settled_resources_writes_nothing(own_operator: Any, namespace: Any) -> None:
    own_operator.start()
    namespace.submit()
    namespace.run_through()
    namespace.until("expiry", lambda: all("ttlSecondsAfterFinished" in j["spec"] for j in namespace.all("jobs")))
    before = versions(namespace)
    assert own_operator.stop() == 0
    own_operator.start()
    # A resource made afterwards is acted on after the settled ones were looked at.
    namespace.apply({**namespace.get("ftj", "reviews"), "metadata": {"name": "other"}, "status": {}})
    namespace.until("the other's Job", lambda: [name for name in namespace.jobs if name.startswith("other")])
    assert {
        kind: {n: v for n, v in known.items() if n in before[kind]} for kind, known in versions(namespace).items()
    } == before


def versions(namespace: Any) -> dict[str, dict[str, str]]:
    return {
        kind: {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in namespace.all(kind)}
        for kind in ("ftj", "jobs")
    }


def test_a_pod_that_ends_while_no_operator_runs_is_harvested_afterwards(own_operator: Any, namespace: Any) -> None:
    own_operator.start()
    namespace.submit()
    namespace.prepare_ends()
    namespace.await_pod("train")
    own_operator.kill()
    namespace.train_ends()
    namespace.await_pod("train", ended=True)
    own_operator.start()
    namespace.await_reason("ftj", "reviews", "Published")


def test_an_operator_that_is_asked_to_stop_does_so_at_once(own_operator: Any, namespace: Any) -> None:
    own_operator.start()
    namespace.submit()
    namespace.await_pod("prepare")
    begun = time.monotonic()
    assert own_operator.stop() == 0
    assert time.monotonic() - begun < 10


def test_the_api_server_may_go_and_come_back(cluster: Any, own_operator: Any, namespace: Any) -> None:
    own_operator.start()
    namespace.submit()
    namespace.await_pod("prepare")
    cluster.restart_apiserver()
    namespace.prepare_ends()
    namespace.await_pod("train")
    namespace.train_ends()
    namespace.await_reason("ftj", "reviews", "Published")


def test_health_and_metrics_are_served(own_operator: Any, namespace: Any) -> None:
    own_operator.start()
    namespace.submit()
    namespace.await_pod("prepare")
    assert own_operator.get("/healthz") == ("ok\n", None)
    text, _ = own_operator.get("/metrics")
    assert 'luthier_reconciles_total{kind="FineTuneJob"}' in text
    assert 'luthier_writes_total{what="status"}' in text
