"""What the chart's values may be, and what they do to the objects of the operator."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from luthier_dev.charts import CHART
from luthier_dev.errors import CommandFailed
from luthier_operator.model.defaults import Defaults
from luthier_operator.ops.settings import Settings
from support.helm import of_kind, only, render

pytestmark = pytest.mark.unit

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
INFORMATION = yaml.safe_load((CHART / "Chart.yaml").read_text())
DIGEST = f"sha256:{'0' * 64}"


def operator(values: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return the operator's pod template."""
    template: dict[str, Any] = only(render(values, **options), "Deployment")["spec"]["template"]
    return template


def environment(values: dict[str, Any]) -> dict[str, str]:
    (container,) = operator(values)["spec"]["containers"]
    return {each["name"]: each.get("value", "") for each in container["env"]}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def places(
    values: dict[str, Any], schema: dict[str, Any], place: str = ""
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield each value with its place and its schema; a schema that is missing is empty."""
    options = [resolved(each) for each in (schema, *schema.get("anyOf", ()))]
    fields = next((each["properties"] for each in options if "properties" in each), {})
    for name, value in values.items():
        here = resolved(fields.get(name, {}))
        yield f"{place}{name}", value, here
        if isinstance(value, dict) and value:
            yield from places(value, here, f"{place}{name}.")


def test_the_schema_knows_each_value_of_the_chart_and_no_group_takes_unknown_names() -> None:
    jsonschema.validate(VALUES, SCHEMA)
    found = list(places(VALUES, SCHEMA))
    assert len(found) > 80
    unknown = [place for place, _, schema in found if not schema]
    assert [place for place in unknown if place not in ("dashboards.labels.grafana_dashboard",)] == [
        place for place in unknown if place.startswith("operator.resources.")
    ]
    for place, value, schema in found:
        if isinstance(value, dict) and value:
            options = [schema, *(resolved(each) for each in schema.get("anyOf", ()))]
            assert any(
                "additionalProperties" in each and each["additionalProperties"] is not True for each in options
            ), place


def test_each_value_has_a_sentence_for_the_readme() -> None:
    """helm-docs lists a value without a comment too, with an empty cell."""
    readme = (CHART / "README.md").read_text()
    table = readme.partition("## Values")[2].partition("## ")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 60
    assert [row[0] for row in rows if len(row) < 4 or len(row[-1].rstrip("| ")) < 10] == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"operatr": {}}, "operatr"),
        ({"operator": {"imag": "x"}}, "imag"),
        ({"operator": {"image": {"digest": "sha256:1"}}}, "digest"),
        ({"operator": {"resources": {"request": {}}}}, "request"),
        ({"operator": {"tolerations": [{"kex": "a"}]}}, "kex"),
        ({"networkPolicy": {"training": {"egres": []}}}, "egres"),
        ({"serviceMonitor": {"renderMode": "always"}}, "renderMode"),
        ({"trainer": {"resources": {"limit": {}}}}, "limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_does_not_exist_is_refused_by_name(values: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandFailed) as error:
        render(values)
    assert says in error.value.tail


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "luthier-operator:0.2.0"),
        ("registry.example.com/a:1", "registry.example.com/a:1"),
        ({"registry": "r.example:5000", "repository": "ml/a"}, "r.example:5000/ml/a:0.2.0"),
        ({"repository": "r.example:5000/a", "tag": "9"}, "r.example:5000/a:9"),
        ({"repository": "r.example/a", "tag": "9", "digest": DIGEST}, f"r.example/a@{DIGEST}"),
        ({"digest": DIGEST}, f"luthier-operator@{DIGEST}"),
    ],
)
def test_an_image_is_one_text_or_its_parts_of_which_the_digest_goes_first(image: Any, expected: str) -> None:
    (container,) = operator({"operator": {"image": image}})["spec"]["containers"]
    assert container["image"] == expected
    given = environment({"trainer": {"image": image}, "server": {"image": image}})
    assert given["LUTHIER_TRAINER_IMAGE"] == expected.replace("luthier-operator", "luthier-trainer")
    assert given["LUTHIER_SERVER_IMAGE"] == expected.replace("luthier-operator", "luthier-server")


@pytest.mark.parametrize(
    ("values", "release", "name"),
    [
        ({}, "luthier", "luthier"),
        ({}, "ml", "ml"),
        ({"nameOverride": "tuner"}, "ml", "ml-tuner"),
        ({"nameOverride": "tuner"}, "tuner-a", "tuner-a"),
        ({"fullnameOverride": "tuner"}, "ml", "tuner"),
    ],
)
def test_all_objects_are_named_after_the_release_or_as_the_values_say(
    values: dict[str, Any], release: str, name: str
) -> None:
    objects = render(
        {**values, "watchNamespaces": ["team"], "dashboards": {"enabled": True}}, release=release, hooks=True
    )
    assert {each["metadata"]["name"].startswith(name) for each in objects} == {True}
    template = only(objects, "Deployment")["spec"]["template"]
    selector = only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/name": values.get("nameOverride", "luthier"),
        "app.kubernetes.io/instance": release,
    }
    assert selector.items() <= template["metadata"]["labels"].items()
    assert template["spec"]["serviceAccountName"] == name
    for role in of_kind(objects, "Role").values():
        names = [each for rule in role["rules"] for each in rule.get("resourceNames", [])]
        assert set(names) <= {name, "luthier-owner"}
    (container,) = template["spec"]["containers"]
    assert {"name": "LUTHIER_LEASE_NAME", "value": name} in container["env"]


def test_common_labels_are_on_every_object_and_never_change_what_selects_pods() -> None:
    labels = {"team": "ml", "app.kubernetes.io/name": "other"}
    values = {"commonLabels": labels, "watchNamespaces": ["a"], "dashboards": {"enabled": True}}
    objects = render({**values, "operator": {"podLabels": {"mesh": "off"}}}, hooks=True, crds=True)
    assert {each["kind"] for each in objects} >= {"CustomResourceDefinition", "NetworkPolicy", "Pod", "ConfigMap"}
    for each in objects:
        assert each["metadata"]["labels"]["team"] == "ml", each["kind"]
        assert each["metadata"]["labels"]["app.kubernetes.io/name"] in ("luthier", "luthier-test")
    template = only(objects, "Deployment")["spec"]["template"]
    assert template["metadata"]["labels"].items() >= {"team": "ml", "mesh": "off"}.items()


def test_security_contexts_volumes_and_variables_are_added_to_what_the_chart_has() -> None:
    values = {
        "podSecurityContext": {"runAsUser": 1000, "fsGroup": 1},
        "securityContext": {"runAsGroup": 7},
        "extraEnv": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        "annotations": {"a": "b"},
    }
    objects = render({"operator": values})
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert only(objects, "Deployment")["metadata"]["annotations"] == {"a": "b"}
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 65532, "fsGroup": 1,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        "runAsGroup": 7,
    }  # fmt: skip
    assert container["env"][-1]["name"] == "TOKEN"
    assert [each["name"] for each in pod["volumes"]] == ["tmp", "ca"]
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/tmp", "/ca"]


def test_a_service_account_that_exists_is_used_and_not_made() -> None:
    objects = render({"serviceAccount": {"create": False, "name": "mine"}, "watchNamespaces": ["team"]})
    assert not of_kind(objects, "ServiceAccount")
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    for binding in of_kind(objects, "RoleBinding").values():
        assert [each["name"] for each in binding["subjects"]] == ["mine"]
    made = render(
        {"serviceAccount": {"annotations": {"role": "arn"}, "labels": {"azure.workload.identity/use": "true"}}}
    )
    account = only(made, "ServiceAccount")["metadata"]
    assert account["annotations"] == {"role": "arn"} and account["labels"]["azure.workload.identity/use"] == "true"


def test_default_resources_of_pods_reach_the_operators_settings() -> None:
    wanted = {"requests": {"cpu": 2, "memory": "4Gi"}, "limits": {"memory": 10**10}}
    values = {
        "trainer": {"resources": wanted, "prepareResources": wanted},
        "server": {"resources": wanted, "headResources": wanted, "autoscalerResources": wanted},
    }
    defaults = Settings.from_environment(environment(values)).defaults()
    for found in (defaults.train, defaults.prepare, defaults.serve, defaults.serve_head, defaults.autoscaler):
        assert (found.requests, found.limits) == ({"cpu": "2", "memory": "4Gi"}, {"memory": "10000000000"})
    usual = Settings.from_environment(environment({})).defaults()
    assert usual.train == Defaults(trainer_image="", server_image="").train
    of_env = {**values, "operator": {"env": {"LUTHIER_TRAIN_RESOURCES": "{}"}}}
    (container,) = operator(of_env)["spec"]["containers"]
    assert [each["value"] for each in container["env"] if each["name"] == "LUTHIER_TRAIN_RESOURCES"] == ["{}"]


def test_the_defaults_that_the_readme_names_are_the_operators() -> None:
    table = (CHART / "values.yaml").read_text()
    said = {name: text for text, name in re.findall(r"# @default -- (.*)\n  (\w+): \{\}", table)}
    usual = Defaults(trainer_image="", server_image="")
    trained = {"resources": usual.serve, "prepareResources": usual.prepare}
    trained |= {"headResources": usual.serve_head, "autoscalerResources": usual.autoscaler}
    for name, resources in trained.items():
        assert said[name].startswith(f"{resources.requests['cpu']} CPU and {resources.requests['memory']}; limit ")
        assert said[name].endswith(resources.limits["memory"])
    assert f"{usual.train.requests['cpu']} CPU and {usual.train.requests['memory']}; limit 8Gi" in table


def test_extra_objects_are_installed_and_may_hold_templates() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-b'}\n"
    objects = render(
        {"extraObjects": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-a"}}, text]}
    )
    assert only(objects, "Secret")["metadata"]["name"] == "luthier-a"
    assert only(objects, "ConfigMap")["metadata"]["name"] == "luthier-b"


def test_artifact_hub_is_told_of_the_images_and_the_kinds_that_the_chart_has() -> None:
    said = {name.partition("/")[2]: text for name, text in INFORMATION["annotations"].items()}
    images = {each["name"]: each["image"] for each in yaml.safe_load(said["images"])}
    assert images == {
        part: f"{VALUES[part]['image']['repository']}:{INFORMATION['appVersion']}"
        for part in ("operator", "trainer", "server")
    }
    crds = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted((CHART / "files" / "crds").glob("*.yaml"))]
    assert [(each["kind"], each["name"], each["version"]) for each in yaml.safe_load(said["crds"])] == [
        (crd["spec"]["names"]["kind"], crd["metadata"]["name"], crd["spec"]["versions"][0]["name"]) for crd in crds
    ]
    by_kind = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in crds}
    for example in yaml.safe_load(said["crdsExamples"]):
        assert set(example["spec"]) <= set(by_kind[example["kind"]]["properties"]["spec"]["properties"])
