"""The chart against a real API server: it is admitted as it stands, and its pod under the strictest pod security."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier_dev import binaries, versions
from luthier_dev.paths import REPOSITORY
from luthier_operator.ops.settings import Settings
from support.pages import marked_with

pytestmark = pytest.mark.integration

CHART = REPOSITORY / "charts" / "luthier"
Values = dict[str, Any]


def rendered(namespace: str, values: dict[str, Any] | None = None, *, hooks: bool = False) -> list[dict[str, Any]]:
    command = [str(binaries.path("helm")), "template", "luthier", str(CHART)]
    command += ["--namespace", namespace, "--kube-version", versions.KUBERNETES, "--set", "allowedImages={r.example/}"]
    command += ["--values", "-", *([] if hooks else ["--no-hooks"])]
    text = subprocess.run(command, check=True, capture_output=True, text=True, input=json.dumps(values or {})).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def rendered_with_only(values: Values, folder: Path) -> str:
    """Return what helm renders of the chart with these values and no defaults, as `upgrade --reuse-values` does."""
    chart = folder / "luthier"
    shutil.rmtree(chart, ignore_errors=True)
    shutil.copytree(CHART, chart)
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    command = [str(binaries.path("helm")), "template", "luthier", str(chart), "--kube-version", versions.KUBERNETES]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def merged(old: Values, new: Values) -> Values:
    """Return the values with others over them, as helm merges them."""
    both = {**old, **new}
    return {
        k: merged(old[k], v) if isinstance(v, dict) and isinstance(old.get(k), dict) else v for k, v in both.items()
    }


def paths_in(values: Values) -> Iterator[tuple[str, ...]]:
    """Yield the path of each group and each value."""
    for name, value in values.items():
        yield (name,)
        yield from ((name, *rest) for rest in (paths_in(value) if isinstance(value, dict) else ()))


DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
OLD_VALUES = sorted((Path(__file__).parent / "upgrade" / "values").glob("*.yaml"))
FIRST: Values = yaml.safe_load(next(path for path in OLD_VALUES if "first" in path.name).read_text())
UNSET: Values = {"operator": {"replicas": 1}, "networkPolicy": {"enabled": False}}
"""What is otherwise than by default where a value is unset: as before there was that value."""
BEFORE = {("operator", "replicas"), ("networkPolicy",)}
"""Where they are."""


@pytest.mark.parametrize("path", OLD_VALUES, ids=lambda path: path.stem)
def test_an_upgrade_that_reuses_the_values_of_an_older_chart_renders_what_was_not_there_yet_by_default(
    path: Path, tmp_path: Path
) -> None:
    old = yaml.safe_load(path.read_text())
    expected = merged(merged(DEFAULTS, UNSET), old)
    assert rendered_with_only(old, tmp_path) == rendered_with_only(expected, tmp_path)


def with_less(path: tuple[str, ...], *, emptied: bool) -> Values:
    """Return the chart's values without one, or with a group of which no value is set."""
    fewer = copy.deepcopy(DEFAULTS)
    *groups, name = path
    group = functools.reduce(dict.__getitem__, groups, fewer)
    if emptied:
        group[name] = {}
    else:
        del group[name]
    return fewer


def test_no_value_that_the_first_chart_did_not_have_has_to_be_set(tmp_path: Path) -> None:
    newer = set(paths_in(DEFAULTS)) - set(paths_in(FIRST))
    assert newer >= {("assignUser",), ("podEnv",), ("operator", "replicas")}
    groups = [path for path in newer if isinstance(functools.reduce(dict.__getitem__, path, DEFAULTS), dict)]
    cases = [(path, False) for path in newer if path[:-1] not in newer] + [(path, True) for path in groups]
    without_crds: Values = {"crds": {"install": False}}
    usual = rendered_with_only(merged(DEFAULTS, without_crds), tmp_path)
    for path, emptied in cases:
        expected = usual
        if path in BEFORE:
            group = path[0]
            expected = rendered_with_only(merged(DEFAULTS, {group: UNSET[group], **without_crds}), tmp_path)
        assert rendered_with_only(merged(with_less(path, emptied=emptied), without_crds), tmp_path) == expected, path


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
    (test,) = (each for each in rendered(namespace.name, hooks=True) if each["kind"] == "Pod")
    test["spec"]["serviceAccountName"] = "default"
    namespace.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(test))


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
    (shown,) = marked_with(
        "tests/integration/operator/test_chart.py::"
        "test_the_documented_way_on_lets_resources_go_that_no_operator_is_left_for"
    )
    path = f"{binaries.path('kubectl').parent}:/usr/bin:/bin"
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path), "PATH": path}
    here = shown.text.replace("--all-namespaces", f"--namespace {namespace.name}")
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


def test_the_notes_of_a_release_say_what_was_left_out(cluster: Any) -> None:
    def notes(**values: Any) -> str:
        command = [str(binaries.path("helm")), "install", "noted", str(CHART), "--namespace", "ml"]
        command += ["--dry-run=client", "--kubeconfig", str(cluster.kubeconfig), "--values", "-"]
        given = json.dumps({"crds": {"install": False}, **values})
        done = subprocess.run(command, capture_output=True, text=True, input=given)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:\n")[2]

    said = notes(podMonitor={"enabled": True})
    assert "podMonitor is enabled, and the cluster has no kind PodMonitor: none was made." in said
    assert "list networkPolicy.namespaces" in said and "helm test noted -n ml --logs" in said
    said = notes(watchNamespaces=["team"])
    assert "none was made" not in said and "networkPolicy" not in said
