"""Two releases of Luthier that watch one namespace: one works there, and the other says so and does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def test_one_release_works_in_a_namespace_and_the_second_says_so_and_writes_nothing_else(
    cluster: Any, namespace: Any, tmp_path: Path, operator_process: Any, chart_kubeconfig: Any
) -> None:
    releases = []
    for release in (f"{namespace.name}-a", f"{namespace.name}-b"):
        folder = tmp_path / release
        folder.mkdir()
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": release}}
        given_back = json.dumps({**lease, "spec": {"holderIdentity": ""}})
        cluster.kubectl("apply", "-n", "default", "-f", "-", stdin=given_back)
        process = operator_process(
            chart_kubeconfig(cluster, folder, release, f"watchNamespaces={{{namespace.name}}}"),
            folder,
            LUTHIER_WATCH_NAMESPACES=namespace.name,
            LUTHIER_LEASE_NAME=release,
            LUTHIER_LEASE_NAMESPACE="default",
        )
        releases.append(process)
    first, second = releases
    try:
        first.start()
        namespace.submit()
        namespace.await_pod("prepare")
        second.start()
        namespace.until("the second's word", lambda: "OtherRelease" in second.log)
        namespace.run_through()
        holder = namespace.kubectl("get", "lease", "luthier-owner", "-o", "jsonpath={.spec.holderIdentity}")
        assert holder == f"default/{namespace.name}-a"
        told = [event for event in namespace.all("events") if event["reason"] == "OtherRelease"]
        assert len(told) == 1 and f"default/{namespace.name}-a" in told[0]["message"]
        assert "apply " not in second.log and "status " not in second.log and "delete " not in second.log
    finally:
        for process in releases:
            process.kill()
            print(process.log)
