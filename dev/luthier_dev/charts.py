"""Checks of the Helm chart: helm's own lint, and kubeconform over what it renders.

Owns the values that the chart is rendered with, and the JSON schemas for kubeconform, which come from our own API
server because no network is asked. Installs nothing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from luthier_dev import binaries, steps, versions
from luthier_dev.controlplane import ControlPlane
from luthier_dev.errors import CommandFailed
from luthier_dev.kubectl import Kubectl
from luthier_dev.paths import REPOSITORY, layout

CHART = REPOSITORY / "charts" / "luthier"
RENDERINGS: dict[str, list[str]] = {
    "as it stands": [],
    "for two namespaces, without CRDs": ["--set", "watchNamespaces={a,b}", "--set", "crds.install=false"],
    "with one pod, and images that are allowed": [
        *("--set", "operator.replicas=1", "--set", "allowedImages={registry.example.com/ml/,trainer:1}"),
        *("--set", "operator.topologySpreadConstraints[0].topologyKey=topology.kubernetes.io/zone"),
        *("--set", "operator.topologySpreadConstraints[0].maxSkew=1"),
        *("--set", "operator.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule"),
    ],
    "with a pull secret, environment and placement": [
        *("--set", "imagePullSecrets={registry}", "--set", "operator.env.LUTHIER_LOG_FORMAT=text"),
        *("--set", "operator.nodeSelector.pool=system", "--set", "operator.priorityClassName=high"),
    ],
    "with everything that is off by default": [
        *("--set", "watchNamespaces={a,b}", "--set", "networkPolicy.training.egress[0].ports[0].port=443"),
        *("--set", "networkPolicy.serving.from[0].podSelector.matchLabels.app=web", "--set", "rbac.perKind=true"),
        *("--set", "serviceMonitor.enabled=true", "--set", "serviceMonitor.renderMode=alwaysRender"),
        *("--set", "podMonitor.enabled=true", "--set", "podMonitor.renderMode=alwaysRender"),
        *("--set", "prometheusRule.enabled=true", "--set", "prometheusRule.renderMode=alwaysRender"),
        *("--set", "dashboards.enabled=true", "--set", "commonLabels.team=ml", "--set", "nameOverride=tuner"),
        *("--set", "operator.extraEnv[0].name=A", "--set", "operator.podLabels.a=b", "--set", "crds.install=false"),
        *("--set", "trainer.resources.limits.memory=16Gi", "--set", "operator.podSecurityContext.fsGroup=1"),
    ],
}

# Kinds of Prometheus' operator, whose schemas no API server of ours has.
_FOREIGN = "ServiceMonitor,PodMonitor,PrometheusRule"


def lint() -> None:
    """Run helm lint, and kubeconform --strict over each rendering.

    Raises:
        CommandFailed: one of them found something.
    """
    binaries.ensure(["helm", "kubeconform", "kubectl", "etcd", "kube-apiserver", "kube-controller-manager"])
    with steps.step("helm lint"):
        steps.run_logged([str(binaries.path("helm")), "lint", "--strict", "--quiet", str(CHART)])
    location = f"{_schemas()}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    for what, arguments in RENDERINGS.items():
        with steps.step(f"kubeconform: the chart {what}"):
            command = [str(binaries.path("kubeconform")), "-strict", "-summary", "-schema-location", location]
            command += ["-skip", _FOREIGN]
            steps.run_logged(command, stdin=_render(arguments))


def _render(arguments: list[str]) -> str:
    command = [str(binaries.path("helm")), "template", "luthier", str(CHART), "--namespace", "luthier-system"]
    command += ["--kube-version", versions.KUBERNETES, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CommandFailed(command, result.returncode, None, result.stderr.strip())
    return result.stdout


def _schemas() -> Path:
    """Return the folder of JSON schemas of this Kubernetes' kinds, made once from its OpenAPI document."""
    folder = layout().share / f"kubernetes-schemas-{versions.KUBERNETES}"
    if not (folder / "complete").exists():
        with steps.step("Fetch the API server's schemas", usually_s=12), ControlPlane() as control_plane:
            document = json.loads(Kubectl(control_plane.kubeconfig)("get", "--raw", "/openapi/v2"))
        _write_schemas(layout().make(folder), document["definitions"])
        (folder / "complete").touch()
    return folder


def _write_schemas(folder: Path, definitions: dict[str, Any]) -> None:
    """Write one file of all definitions, and one per kind that points into it."""
    for definition in definitions.values():
        if definition.get("properties"):
            definition["additionalProperties"] = False
        if definition.get("format") == "int-or-string":
            del definition["type"], definition["format"]
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            parts = [kind["kind"], *([kind["group"].split(".")[0]] if kind["group"] else []), kind["version"]]
            pointer = {"$ref": f"_definitions.json#/definitions/{name}"}
            (folder / f"{'-'.join(parts).lower()}.json").write_text(json.dumps(pointer))
