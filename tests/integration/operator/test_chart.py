"""The chart against a real API server: it is admitted as it stands, and its pod under the strictest pod security."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier_dev import binaries, versions
from luthier_dev.paths import REPOSITORY
from luthier_operator.ops.settings import Settings

pytestmark = pytest.mark.integration


def rendered(namespace: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    command = [str(binaries.path("helm")), "template", "luthier", str(REPOSITORY / "charts" / "luthier")]
    command += ["--namespace", namespace, "--kube-version", versions.KUBERNETES, "--set", "allowedImages={r.example/}"]
    command += ["--values", "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, input=json.dumps(values or {})).stdout
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
    named = [["luthier"], ["luthier-owner"]]  # the release's own, and that of the namespaces which it works in
    assert [rule["verbs"] for rule in of_leases if rule.get("resourceNames") not in named] == [["create"], ["create"]]


def test_the_documented_way_on_lets_resources_go_that_no_operator_is_left_for(
    cluster: Any, namespace: Any, make_finetunejob: Any, tmp_path: Path
) -> None:
    resource = make_finetunejob(deletionPolicy="Delete")
    resource["metadata"]["finalizers"] = ["luthier.dev/artifacts"]
    namespace.apply(resource)
    namespace.kubectl("delete", "ftj", "reviews", "--wait=false")
    assert namespace.all("ftj")
    page = (REPOSITORY / "docs" / "install.md").read_text()
    script = page.partition("<!-- release the finalizers -->")[2].partition("\n## ")[0]
    path = f"{binaries.path('kubectl').parent}:/usr/bin:/bin"
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path), "PATH": path}
    here = script.replace("--all-namespaces", f"--namespace {namespace.name}")
    subprocess.run(["bash", "-euo", "pipefail", "-c", here], check=True, env=environment)
    namespace.until("its end", lambda: not namespace.all("ftj"))


def test_numbers_in_operator_env_reach_the_pod_as_they_are_written(namespace: Any) -> None:
    values = {"operator": {"env": {"LUTHIER_WORKERS": 8, "LUTHIER_AUDIT_INTERVAL_S": 1000000, "X": 0.5, "Y": True}}}
    (deployment,) = (each for each in rendered(namespace.name, values) if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = {each["name"]: each.get("value") for each in container["env"]}
    assert (found["LUTHIER_WORKERS"], found["LUTHIER_AUDIT_INTERVAL_S"]) == ("8", "1000000")
    assert (found["X"], found["Y"]) == ("0.5", "true")


def test_openshift_chooses_the_uid_and_every_pod_gets_the_environment_of_the_cluster(namespace: Any) -> None:
    values = {"assignUser": False, "podEnv": {"HTTPS_PROXY": "http://proxy:3128", "N": 1}}
    values |= {"imagePullSecrets": ["a", {"name": "b"}], "modelCache": {"claimName": "models"}}
    (deployment,) = (each for each in rendered(namespace.name, values) if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert not {"runAsUser", "runAsGroup"} & set(pod["securityContext"]) and pod["securityContext"]["runAsNonRoot"]
    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    environment = {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}
    settings = Settings.from_environment(environment)
    defaults = settings.defaults()
    assert defaults.model_cache_claim == "models"
    assert not defaults.assign_user and defaults.pod_env == {"HTTPS_PROXY": "http://proxy:3128", "N": "1"}
