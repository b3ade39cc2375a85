"""Monitors, rules and dashboards: rendered where the cluster has their kinds, and pointing at what there is."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_dev.charts import CHART
from luthier_dev.errors import CommandFailed
from luthier_dev.paths import REPOSITORY
from luthier_operator.manifests import jobs
from luthier_operator.model import names
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.views import Meta
from support.helm import MONITORING, of_kind, only, render

pytestmark = pytest.mark.unit

ALL_ON: dict[str, Any] = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule")}
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())


def with_mode(mode: str) -> dict[str, Any]:
    return {name: {"enabled": True, "renderMode": mode} for name in ALL_ON}


@pytest.mark.parametrize(
    ("mode", "there", "expected"),
    [
        ("skipIfMissing", (), set()),
        ("skipIfMissing", MONITORING, set(MONITORING)),
        ("failIfMissing", MONITORING, set(MONITORING)),
        ("alwaysRender", (), set(MONITORING)),
    ],
)
def test_the_render_mode_says_what_happens_where_the_kinds_are_missing(
    mode: str, there: tuple[str, ...], expected: set[str]
) -> None:
    found = {each["kind"] for each in render(with_mode(mode), kinds=there)}
    assert found & set(MONITORING) == expected


@pytest.mark.parametrize("name", ALL_ON)
def test_fail_if_missing_names_the_kind_and_what_to_do(name: str) -> None:
    with pytest.raises(CommandFailed) as error:
        render({name: {"enabled": True, "renderMode": "failIfMissing"}})
    assert f"The cluster has no kind {name[0].upper()}{name[1:]}: install Prometheus' operator" in error.value.tail


def test_nothing_is_monitored_unless_asked_for() -> None:
    kinds = {each["kind"] for each in render(kinds=MONITORING)}
    assert not kinds & {*MONITORING, "ConfigMap"}


def test_the_operator_is_scraped_by_its_service_and_keeps_the_namespaces_of_resources() -> None:
    objects = render(ALL_ON, kinds=MONITORING)
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,), (port,) = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert endpoint["port"] == port["name"] and endpoint["honorLabels"] is True
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["luthier-system"]}
    with pytest.raises(CommandFailed) as error:
        render({**ALL_ON, "metrics": {"service": False}}, kinds=MONITORING)
    assert "set metrics.service to true" in error.value.tail


def test_training_pods_are_scraped_by_the_port_that_they_have_and_named_by_their_labels() -> None:
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "s3://models/base"},
            "dataset": {"train": {"uri": "s3://data/reviews.csv"}},
            "output": {"name": "sentiment", "uri": "s3://models/"},
        }
    )
    job = jobs.job(
        Meta("FineTuneJob", "team", "reviews", "uid", 1), spec, stage="train", run="r", spec_hash="", resolved=None,
        defaults=Defaults(trainer_image="t", server_image="s"),
    )  # fmt: skip
    template = job["spec"]["template"]
    monitor = of_kind(render(ALL_ON, kinds=MONITORING), "PodMonitor")["luthier-training"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (expression,) = monitor["spec"]["selector"]["matchExpressions"]
    assert expression["key"] in template["metadata"]["labels"]
    assert endpoint["port"] in [port["name"] for port in template["spec"]["containers"][0]["ports"]]
    renamed = {each["targetLabel"]: each["sourceLabels"][0] for each in endpoint["relabelings"]}
    assert renamed == {
        name: discovered(label) for name, label in (("finetunejob", names.FINETUNEJOB), ("run", names.RUN))
    }


def discovered(label: str) -> str:
    """Return what Prometheus calls the label of a pod while it relabels."""
    return "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", label)


def test_server_pods_are_scraped_for_our_metrics_alone_unless_all_of_rays_are_wanted() -> None:
    def endpoint(**values: Any) -> dict[str, Any]:
        objects = render({"podMonitor": {"enabled": True, **values}}, kinds=MONITORING)
        (found,) = of_kind(objects, "PodMonitor")["luthier-serving"]["spec"]["podMetricsEndpoints"]
        return dict(found)

    assert endpoint()["port"] == "metrics", "KubeRay's name for the port of Ray's metrics"
    assert [each["targetLabel"] for each in endpoint()["relabelings"]] == ["modeldeployment"]
    (keep,) = endpoint()["metricRelabelings"]
    kept = re.compile(f"^(?:{keep['regex']})$")
    assert kept.match("ray_luthier_requests_total") and kept.match("ray_serve_deployment_replica_healthy")
    assert not kept.match("ray_node_cpu_utilization")
    assert "metricRelabelings" not in endpoint(keepAllOfRay=True)
    drop = {"sourceLabels": ["x"], "action": "drop"}
    assert endpoint(metricRelabelings=[drop])["metricRelabelings"] == [keep, drop]


def test_pods_are_scraped_in_the_namespaces_that_are_watched() -> None:
    assert {
        json.dumps(each["spec"]["namespaceSelector"])
        for each in of_kind(render({**ALL_ON, "watchNamespaces": ["a", "b"]}, kinds=MONITORING), "PodMonitor").values()
    } == {'{"matchNames": ["a", "b"]}'}
    monitors = of_kind(render(ALL_ON, kinds=MONITORING), "PodMonitor").values()
    assert [each["spec"]["namespaceSelector"] for each in monitors] == [{"any": True}] * 2


def test_monitors_and_rules_may_lie_in_another_namespace_with_the_labels_that_prometheus_selects() -> None:
    told = {"enabled": True, "namespace": "monitoring", "additionalLabels": {"release": "prometheus"}}
    objects = render(dict.fromkeys(ALL_ON, told), kinds=MONITORING)
    found = [each["metadata"] for each in objects if each["kind"] in MONITORING]
    assert len(found) == 4
    assert {(each["namespace"], each["labels"]["release"]) for each in found} == {("monitoring", "prometheus")}


def test_the_rule_has_every_alert_word_for_word_and_no_address_that_nobody_gave() -> None:
    rule = only(render(ALL_ON, kinds=MONITORING), "PrometheusRule")
    expected = json.loads(json.dumps(ALERTS["groups"]))
    for group in expected:
        for alert in group["rules"]:
            del alert["annotations"]["runbook_url"]
    assert rule["spec"]["groups"] == expected


def test_alerts_can_be_left_out_labelled_and_added() -> None:
    extra = {"name": "mine", "rules": [{"alert": "Mine", "expr": "vector(1)"}]}
    serving = [each["alert"] for each in ALERTS["groups"][2]["rules"]]
    values = {
        "enabled": True,
        "disabled": ["LuthierAbsent", *serving],
        "alertLabels": {"team": "ml", "severity": "none"},
        "extraGroups": [extra],
        "runbookBaseUrl": "https://wiki.example.com/luthier/",
    }
    groups = only(render({"prometheusRule": values}, kinds=MONITORING), "PrometheusRule")["spec"]["groups"]
    assert [each["name"] for each in groups] == ["luthier-operator", "luthier-training", "mine"]
    first = groups[0]["rules"][0]
    assert first["alert"] == "LuthierNoLeader" and first["labels"] == {"severity": "critical", "team": "ml"}
    assert first["annotations"]["runbook_url"] == "https://wiki.example.com/luthier/alerts.md#luthiernoleader"
    assert groups[2] == extra


def test_each_dashboard_is_a_config_map_that_grafanas_sidecar_takes_up() -> None:
    values = {"enabled": True, "namespace": "monitoring", "annotations": {"grafana_folder": "ML"}}
    maps = of_kind(render({"dashboards": values}), "ConfigMap")
    assert set(maps) == {f"luthier-dashboard-{name}" for name in ("training", "serving", "operator")}
    for found in maps.values():
        assert found["metadata"]["namespace"] == "monitoring"
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert found["metadata"]["annotations"] == {"grafana_folder": "ML"}
        ((name, text),) = found["data"].items()
        board = json.loads(text)
        assert name == f"{board['uid']}.json" and len(text) < 256 * 1024
    other = of_kind(render({"dashboards": {"enabled": True, "labels": {"dash": "yes"}}}), "ConfigMap")
    assert all(each["metadata"]["labels"]["dash"] == "yes" for each in other.values())


def test_the_page_of_alerts_has_each_of_them_and_every_runbook_leads_to_a_heading_or_an_anchor() -> None:
    page = (REPOSITORY / "docs" / "alerts.md").read_text()
    alerts = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert sorted(re.findall(r"^\| \[?(Luthier\w+)", page, re.M)) == sorted(each["alert"] for each in alerts)
    for alert in alerts:
        name, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        target = (REPOSITORY / "docs" / name).read_text()
        if "$labels.reason" in anchor:
            continue  # of which the next test is
        headings = [line[3:].lower() for line in target.splitlines() if line.startswith("## ")]
        assert anchor in headings or f'<a id="{anchor}"></a>' in target, alert["alert"]
        assert f"| {alert['labels']['severity']} |" in next(
            line for line in page.splitlines() if alert["alert"] in line
        )
