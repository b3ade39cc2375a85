"""Flux on the development cluster, for as long as a test needs it: the controllers that take manifests from Git.

Owns what is taken from their own kustomizations: CRDs, roles, Deployments, in one namespace.
"""

from __future__ import annotations

from typing import Any

import yaml

from luthier_dev import addons, binaries, steps
from luthier_dev.cluster import Cluster

NAMESPACE = "flux-system"
CONTROLLERS = ("source-controller", "kustomize-controller")
_PARTS = ("crd", "rbac", "manager")

Document = dict[str, Any]


def install(cluster: Cluster) -> bool:
    """Install Flux and wait until it runs; return whether it was installed here, and so may be removed."""
    if addons.is_foreign(cluster, "kustomizations.kustomize.toolkit.fluxcd.io"):
        steps.say("Flux is already installed on this cluster; using it unchanged.")
        return False
    binaries.ensure(CONTROLLERS)
    cluster.load_images([f"luthier-{each}" for each in CONTROLLERS])
    with steps.step("Install Flux", usually_s=20):
        documents = _manifests(cluster)
        crds = [each for each in documents if each["kind"] == "CustomResourceDefinition"]
        cluster.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *crds)
        names = [each["metadata"]["name"] for each in crds]
        cluster.kubectl.wait_for_condition("Established", "customresourcedefinition", *names)
        cluster.kubectl.apply(*(each for each in documents if each["kind"] != "CustomResourceDefinition"))
        for controller in CONTROLLERS:
            addons.wait_for_rollout(cluster, NAMESPACE, controller, timeout_s=180)
    return True


def remove(cluster: Cluster) -> None:
    """Remove Flux; its Kustomizations must be gone, since only its controllers take off their finalizers."""
    with steps.step("Remove Flux", usually_s=10):
        cluster.kubectl(
            *("delete", "--ignore-not-found", "--wait=false", "--filename=-"),
            stdin="\n---\n".join(yaml.safe_dump(each) for each in _manifests(cluster)),
        )
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=120)


def _manifests(cluster: Cluster) -> list[Document]:
    """What both controllers need, in the namespace, with our images."""
    found = []
    for controller in CONTROLLERS:
        for part in _PARTS:
            folder = binaries.flux_manifests(controller) / part
            text = cluster.kubectl("kustomize", str(folder))
            found += [_fitted(each, controller, cluster) for each in yaml.safe_load_all(text)]
    return found


def _fitted(document: Document, controller: str, cluster: Cluster) -> Document:
    kind = document["kind"]
    if kind not in {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}:
        document["metadata"]["namespace"] = NAMESPACE
    for subject in document.get("subjects", ()):
        subject["namespace"] = NAMESPACE
    if kind == "Deployment":
        document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
        container = document["spec"]["template"]["spec"]["containers"][0]
        container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
        if reference := cluster.image_ref(f"luthier-{controller}"):
            container |= {"image": reference, "imagePullPolicy": "IfNotPresent"}
    return document
