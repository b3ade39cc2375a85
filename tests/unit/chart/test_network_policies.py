"""Who may reach which pod, as the chart's NetworkPolicies say, read as a network plug-in would."""

from __future__ import annotations

from typing import Any

import pytest

from luthier_api.documents import SERVE_PORT, SERVER_REPORT_PORT, TRAINER_PORT
from luthier_operator.manifests import rendezvous
from luthier_operator.model import names
from support.helm import of_kind, only, render

pytestmark = pytest.mark.unit

OPERATOR = {"app.kubernetes.io/name": "luthier", "app.kubernetes.io/instance": "luthier"}
TRAINING = names.labels("train", **{names.FINETUNEJOB: "reviews", names.RUN: "reviews-1"})
SERVER = names.labels("worker", **{names.MODELDEPLOYMENT: "reviews"})
OTHER = {"app": "shop"}
RAY_METRICS, RAY_API, RAY_GCS = 8080, 8265, 6379
SYSTEM = "luthier-system"
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    exact = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "Exists" for each in expressions)
    return exact and all(each["key"] in labels for each in expressions)


def allows(peer: dict[str, Any], policy_namespace: str, namespace: str, labels: dict[str, str]) -> bool:
    """Whether a peer of a rule is a pod of these labels in this namespace."""
    if "namespaceSelector" in peer:
        within = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
    else:
        within = namespace == policy_namespace
    return within and selects(peer.get("podSelector", {}), labels)


def reaches(
    objects: list[dict[str, Any]], source: tuple[str, dict[str, str]], target: tuple[str, dict[str, str]], port: int
) -> bool:
    """Whether a pod reaches another's port; a pod that no policy selects is open."""
    policies = [
        each
        for each in objects
        if each["kind"] == "NetworkPolicy"
        and each["metadata"]["namespace"] == target[0]
        and selects(each["spec"]["podSelector"], target[1])
        and "Ingress" in each["spec"]["policyTypes"]
    ]
    if not policies:
        return True
    rules = [(each["metadata"]["namespace"], rule) for each in policies for rule in each["spec"]["ingress"]]
    return any(
        (not rule.get("ports") or any(each["port"] == port for each in rule["ports"]))
        and (not rule.get("from") or any(allows(peer, where, *source) for peer in rule["from"]))
        for where, rule in rules
    )


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (("monitoring", OTHER), (SYSTEM, OPERATOR), 8081, True),
        (("team", OTHER), (SYSTEM, OPERATOR), 22, False),
        ((SYSTEM, OPERATOR), ("team", TRAINING), TRAINER_PORT, True),
        (("monitoring", OTHER), ("team", TRAINING), TRAINER_PORT, True),
        (("team", TRAINING), ("team", TRAINING), rendezvous.PORT, True),
        (("team", TRAINING), ("team", TRAINING), 41234, True),
        (("team", OTHER), ("team", TRAINING), rendezvous.PORT, False),
        (("elsewhere", TRAINING), ("team", TRAINING), rendezvous.PORT, False),
        (("shop", OTHER), ("team", SERVER), SERVE_PORT, True),
        ((SYSTEM, OPERATOR), ("team", SERVER), SERVER_REPORT_PORT, True),
        (("team", OTHER), ("team", SERVER), SERVER_REPORT_PORT, False),
        (("team", SERVER), ("team", SERVER), RAY_GCS, True),
        (("team", OTHER), ("team", SERVER), RAY_GCS, False),
        (("team", TRAINING), ("team", SERVER), RAY_GCS, False),
        (("monitoring", OTHER), ("team", SERVER), RAY_METRICS, True),
        (("kuberay", OTHER), ("team", SERVER), RAY_API, True),
        (("shop", OTHER), ("team", OTHER), 80, True),
    ],
)
def test_by_default_only_what_nobody_needs_is_closed(source: Any, target: Any, port: int, expected: bool) -> None:
    objects = render({"watchNamespaces": ["team"]})
    assert reaches(objects, source, target, port) is expected


def test_what_pods_may_reach_stays_open_until_egress_is_said() -> None:
    open_ = of_kind(render({"watchNamespaces": ["team"]}), "NetworkPolicy")
    assert set(open_) == {"luthier", "luthier-training", "luthier-serving"}
    assert {tuple(each["spec"]["policyTypes"]) for each in open_.values()} == {("Ingress",)}
    rule = {"ports": [{"port": 443}]}
    values = {part: {"egress": [rule]} for part in ("operator", "training", "serving")}
    closed = of_kind(render({"watchNamespaces": ["team"], "networkPolicy": values}), "NetworkPolicy")
    for name, label in (("luthier-training", names.FINETUNEJOB), ("luthier-serving", names.MODELDEPLOYMENT)):
        spec = closed[name]["spec"]
        assert spec["policyTypes"] == ["Egress", "Ingress"]
        dns, among_themselves, said = spec["egress"]
        assert {(each["port"], each["protocol"]) for each in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
        assert among_themselves["to"][0]["podSelector"]["matchExpressions"] == [{"key": label, "operator": "Exists"}]
        assert said == rule
    assert closed["luthier"]["spec"]["egress"] == [rule], "what the operator needs is for the reader to say"


def test_who_may_ask_can_be_said_and_the_operator_may_always() -> None:
    values = {
        "operator": {"from": [PROMETHEUS]},
        "training": {"from": [PROMETHEUS]},
        "serving": {"from": [{"podSelector": {}}], "metricsFrom": [PROMETHEUS], "kuberayFrom": [PROMETHEUS]},
    }
    objects = render({"watchNamespaces": ["team"], "networkPolicy": values})
    monitoring, stranger = ("monitoring", OTHER), ("shop", OTHER)
    for target, port in (
        ((SYSTEM, OPERATOR), 8081),
        (("team", TRAINING), TRAINER_PORT),
        (("team", SERVER), RAY_METRICS),
        (("team", SERVER), RAY_API),
    ):
        assert reaches(objects, monitoring, target, port) and not reaches(objects, stranger, target, port)
    assert reaches(objects, (SYSTEM, OPERATOR), ("team", TRAINING), TRAINER_PORT)
    assert reaches(objects, (SYSTEM, OPERATOR), ("team", SERVER), SERVER_REPORT_PORT)
    assert reaches(objects, ("team", OTHER), ("team", SERVER), SERVE_PORT)
    assert not reaches(objects, stranger, ("team", SERVER), SERVE_PORT)


def test_a_mesh_gets_its_port_by_an_extra_rule() -> None:
    tunnel = [{"ports": [{"port": 15008, "protocol": "TCP"}]}]
    values = {"training": {"extraIngress": tunnel}, "serving": {"extraIngress": tunnel}}
    objects = render({"watchNamespaces": ["team"], "networkPolicy": values})
    for target in (TRAINING, SERVER):
        assert reaches(objects, ("shop", OTHER), ("team", target), 15008)
        assert not reaches(render({"watchNamespaces": ["team"]}), ("shop", OTHER), ("team", target), 15008)


def test_pods_get_policies_in_the_namespaces_that_are_watched_or_named() -> None:
    everywhere = of_kind(render(), "NetworkPolicy")
    assert set(everywhere) == {"luthier"}, "nobody knows which namespaces there will be"
    found = [each for each in render({"watchNamespaces": ["a", "b"]}) if each["kind"] == "NetworkPolicy"]
    assert [each["metadata"]["namespace"] for each in found] == [SYSTEM, "a", "a", "b", "b"]
    named = render({"watchNamespaces": ["a", "b"], "networkPolicy": {"namespaces": ["b"]}})
    assert [each["metadata"]["namespace"] for each in named if each["kind"] == "NetworkPolicy"] == [SYSTEM, "b", "b"]
    assert not of_kind(render({"networkPolicy": {"enabled": False}, "watchNamespaces": ["a"]}), "NetworkPolicy")
    assert only(render(namespace="ml", release="x"), "NetworkPolicy")["metadata"]["namespace"] == "ml"
