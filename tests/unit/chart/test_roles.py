"""Roles of users: what viewers, editors and administrators of a namespace may do with each kind."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from luthier_dev.charts import CHART
from support.helm import of_kind, only, render

pytestmark = pytest.mark.unit

CRDS = [
    yaml.load(path.read_text(), yaml.CSafeLoader)["spec"] for path in sorted((CHART / "files" / "crds").glob("*.yaml"))
]
PLURALS = [each["names"]["plural"] for each in CRDS]
SCALED = [each["names"]["plural"] for each in CRDS if "scale" in each["versions"][0]["subresources"]]
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def allowed(role: dict[str, Any]) -> set[tuple[str, str]]:
    """Return {(verb, resource)}."""
    rules = role["rules"]
    assert all(rule["apiGroups"] == ["luthier.dev"] for rule in rules)
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def aggregated(role: dict[str, Any]) -> set[str]:
    return {name.removeprefix(AGGREGATE) for name in role["metadata"]["labels"] if name.startswith(AGGREGATE)}


def test_whoever_may_view_edit_or_administer_a_namespace_may_do_so_with_each_kind() -> None:
    roles = of_kind(render(), "ClusterRole")
    view, edit, admin = (roles[f"luthier-{name}"] for name in ("view", "edit", "admin"))
    assert (aggregated(view), aggregated(edit), aggregated(admin)) == ({"view"}, {"edit", "admin"}, {"admin"})
    assert SCALED and set(SCALED) <= set(PLURALS)
    for plural in PLURALS:
        assert {("get", plural), ("list", plural), ("watch", plural), ("get", f"{plural}/status")} <= allowed(view)
        writes = {(verb, plural) for verb in ("create", "update", "patch", "delete", "deletecollection")}
        assert writes <= allowed(edit) and writes <= allowed(admin) and not writes & allowed(view)
        assert (("patch", f"{plural}/scale") in allowed(edit)) is (plural in SCALED)
    assert allowed(view) | allowed(edit) == allowed(admin)
    nobody = {(verb, f"{plural}/status") for verb in ("update", "patch") for plural in PLURALS}
    assert not nobody & (allowed(edit) | allowed(admin)), "the status is the operator's alone"


def test_a_role_for_one_kind_can_be_bound_by_hand() -> None:
    assert len(of_kind(render(), "ClusterRole")) == 4
    roles = of_kind(render({"rbac": {"aggregate": False, "perKind": True}}), "ClusterRole")
    expected = {
        f"luthier-{each['names']['singular']}-{role}" for each in CRDS for role in ("viewer", "editor", "admin")
    }
    assert set(roles) == {"luthier", *expected}
    for each in CRDS:
        singular, plural = each["names"]["singular"], each["names"]["plural"]
        viewer, editor, admin = (allowed(roles[f"luthier-{singular}-{role}"]) for role in ("viewer", "editor", "admin"))
        assert viewer == {(v, r) for v in ("get", "list", "watch") for r in (plural, f"{plural}/status")}
        assert ("delete", plural) in editor and not editor & {("get", f"{plural}/status")}
        assert admin == viewer | editor
        for role in ("viewer", "editor", "admin"):
            assert not aggregated(roles[f"luthier-{singular}-{role}"])


def test_the_test_of_a_release_may_do_no_more_than_it_does_and_is_not_taken_for_the_operator() -> None:
    objects = render(hooks=True)
    hooked = [each for each in objects if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    assert {each["kind"] for each in hooked} == {"Pod", "ServiceAccount", "Role", "RoleBinding", "ConfigMap"}
    (rule,) = of_kind(hooked, "Role")["luthier-test"]["rules"]
    assert (rule["resources"], rule["verbs"]) == (["finetunejobs"], ["get", "create", "delete"])
    pod = only(hooked, "Pod")
    selector = only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["containers"][0]["image"] == "luthier-operator:0.2.0"
    compile(of_kind(hooked, "ConfigMap")["luthier-test"]["data"]["run.py"], "run.py", "exec")
