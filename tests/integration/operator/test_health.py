"""An operator whose reconcile hangs: its liveness probe says so, its metrics too, and it still stops in good time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.operator.fault_proxy import FaultProxy

pytestmark = pytest.mark.integration

Start = Callable[..., AbstractContextManager[tuple[FaultProxy, Any]]]


@pytest.fixture
def behind_proxy(cluster: Any, namespace: Any, tmp_path: Path, operator_process: Any, chart_kubeconfig: Any) -> Start:
    """An operator of the test's namespace with these settings, which is not started yet, and the proxy before it."""

    @contextmanager
    def start(**settings: str) -> Iterator[tuple[FaultProxy, Any]]:
        kubeconfig = chart_kubeconfig(cluster, tmp_path, namespace.name, f"watchNamespaces={{{namespace.name}}}")
        proxy = FaultProxy(cluster.kubeconfig, tmp_path / "proxy")
        through = proxy.kubeconfig(kubeconfig, tmp_path / "through-proxy")
        process = operator_process(through, tmp_path, LUTHIER_WATCH_NAMESPACES=namespace.name, **settings)
        try:
            yield proxy, process
        finally:
            process.kill()
            proxy.close()
            print(process.log)

    return start


def test_a_reconcile_that_hangs_is_noticed_and_cut_off_when_the_operator_is_asked_to_stop(
    namespace: Any, behind_proxy: Start
) -> None:
    with behind_proxy(LUTHIER_STUCK_S="0.5", LUTHIER_SHUTDOWN_S="1") as (proxy, process):
        process.start()
        assert process.get("/healthz") == ("ok\n", None)
        hanging = proxy.fault(lambda record: record.method == "POST" and record.plural == "jobs", silence_s=25)
        namespace.submit()
        namespace.until("the reconcile to hang", lambda: hanging.seen)
        said = f"the reconcile of the FineTuneJob {namespace.name}/reviews is stuck"
        namespace.until("the probe to fail", lambda: said in (process.get("/healthz")[1] or ""))
        assert process.get("/readyz") == ("ok\n", None)
        text, _ = process.get("/metrics")
        assert 'luthier_resources{kind="FineTuneJob",phase="Pending"} 1.0' in text
        assert 'luthier_api_requests_total{code="200",verb="watch"}' in text and "luthier_leader 1.0" in text
        begun = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begun < 15.0, "the chart gives it 30 s"
        assert "1 reconciles are cut off" in process.log


def test_comparing_with_a_cluster_that_is_empty_keeps_the_operator_well(namespace: Any, behind_proxy: Start) -> None:
    """The API server lists `null` where there is no object of a custom resource."""
    with behind_proxy(LUTHIER_AUDIT_INTERVAL_S="0.2") as (proxy, process):

        def compared() -> int:
            lists = [each for each in proxy.records if "limit" in each.query and not each.watch]
            return min(sum(each.plural == plural for each in lists) for plural in ("finetunejobs", "jobs", "pods"))

        process.start()
        namespace.until("three comparisons", lambda: compared() >= 3)
        assert process.get("/healthz") == ("ok\n", None)
        assert process.stop() == 0
