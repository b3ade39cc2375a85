"""The chart against a real API server: it is admitted as it stands, and its pod under the strictest pod security."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from luthier_dev import binaries, versions
from luthier_dev.paths import REPOSITORY

pytestmark = pytest.mark.integration


def rendered(namespace: str) -> list[dict[str, Any]]:
    command = [str(binaries.path("helm")), "template", "luthier", str(REPOSITORY / "charts" / "luthier")]
    command += ["--namespace", namespace, "--kube-version", versions.KUBERNETES, "--set", "allowedImages={r.example/}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def test_the_chart_is_admitted_and_its_pod_is_restricted(cluster: Any, namespace: Any) -> None:
    cluster.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    documents = rendered(namespace.name)
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    # As server-side apply: the definitions are longer than what client-side apply remembers.
    cluster.kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", stdin=everything)
    (deployment,) = (each for each in documents if each["kind"] == "Deployment")
    spec = {**deployment["spec"]["template"]["spec"], "serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}
    namespace.until("the service account", lambda: namespace.all("serviceaccounts"))
    namespace.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_no_rule_of_a_role_has_a_wildcard_and_leases_of_others_are_out_of_reach(namespace: Any) -> None:
    roles = [each for each in rendered(namespace.name) if each["kind"] in ("Role", "ClusterRole")]
    rules = [rule for role in roles for rule in role["rules"]]
    assert rules and not [rule for rule in rules for part in rule.values() if "*" in "".join(part)]
    of_leases = [rule for rule in rules if "leases" in rule["resources"]]
    assert [rule["verbs"] for rule in of_leases if rule.get("resourceNames") != ["luthier"]] == [["create"]]
