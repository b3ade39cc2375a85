"""Kueue on the development cluster, for as long as a test needs it: installed, and removed without a trace.

Owns what is taken from Kueue's own kustomization: its controller for batch Jobs with its CRDs and webhooks. The other
kinds of work, and the API server of its own that shows queues, are left out, so that nothing else is slower or broken
while it is there, or when it is cut off.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from luthier_dev import addons, binaries, steps
from luthier_dev.cluster import Cluster
from luthier_dev.kubectl import KubectlFailed
from luthier_dev.waiting import wait_until

NAMESPACE = "kueue-system"
_DEPLOYMENT = "kueue-controller-manager"
_IMAGE = "luthier-kueue"
_CONFIGURATION, _FILE = "kueue-manager-config", "controller_manager_config.yaml"
_GROUPS = {"batch", "kueue.x-k8s.io"}
# What Kueue puts a finalizer on, in the order in which it lets go.
_QUEUES = ["localqueues", "clusterqueues", "resourceflavors", "workloadpriorityclasses"]
_CRD = "workloads.kueue.x-k8s.io"

Document = dict[str, Any]


def install(cluster: Cluster) -> bool:
    """Install Kueue and wait until it answers; return whether it was installed here, and so may be removed."""
    if addons.is_foreign(cluster, _CRD):
        steps.say("Kueue is already installed on this cluster; using it unchanged.")
        return False
    binaries.ensure(["kueue"])
    cluster.load_images([_IMAGE])
    with steps.step("Install Kueue", usually_s=40):
        documents = _manifests(cluster)
        crds = [each for each in documents if each["kind"] == "CustomResourceDefinition"]
        cluster.kubectl.apply(*crds)
        names = [each["metadata"]["name"] for each in crds]
        cluster.kubectl.wait_for_condition("Established", "customresourcedefinition", *names)
        cluster.kubectl.apply(*(each for each in documents if each["kind"] != "CustomResourceDefinition"))
        addons.wait_for_rollout(cluster, NAMESPACE, _DEPLOYMENT, timeout_s=180)
        # It is ready before its webhooks answer through their Service.
        wait_until(lambda: _missing_webhooks(cluster), "Kueue's webhooks", timeout_s=120)
    return True


def manage_all_jobs(cluster: Cluster, namespace: str) -> None:
    """Have Kueue hold also the Jobs of this namespace that name no queue."""
    named = f"configmap/{_CONFIGURATION}"
    found = json.loads(cluster.kubectl("get", named, "--namespace", NAMESPACE, "--output=json"))
    settings = yaml.safe_load(found["data"][_FILE])
    settings["manageJobsWithoutQueueName"] = True
    settings["managedJobsNamespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    patch = json.dumps({"data": {_FILE: yaml.safe_dump(settings)}})
    cluster.kubectl("patch", named, "--namespace", NAMESPACE, "--type=merge", f"--patch={patch}")
    cluster.kubectl("rollout", "restart", f"deployment/{_DEPLOYMENT}", "--namespace", NAMESPACE)
    addons.wait_for_rollout(cluster, NAMESPACE, _DEPLOYMENT, timeout_s=180)
    wait_until(lambda: _missing_webhooks(cluster), "Kueue's webhooks", timeout_s=120)


def remove(cluster: Cluster) -> None:
    """Remove Kueue with all of its queues, CRDs and webhooks; the Jobs in its queues must be gone."""
    with steps.step("Remove Kueue", usually_s=10):
        for kind in _QUEUES:
            cluster.kubectl("delete", f"{kind}.kueue.x-k8s.io", "--all", "--all-namespaces", "--timeout=30s")
        documents = _manifests(cluster)
        # Webhooks first: nothing may ask a controller that is gone.
        documents.sort(key=lambda each: not each["kind"].endswith("WebhookConfiguration"))
        cluster.kubectl(
            *("delete", "--ignore-not-found", "--wait=false", "--filename=-"),
            stdin="\n---\n".join(yaml.safe_dump(each) for each in documents),
        )
        wait_until(lambda: _left(cluster), "Kueue to be gone", timeout_s=90)


def _missing_webhooks(cluster: Cluster) -> str | None:
    flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "asked"}}
    try:
        cluster.kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(flavor))
    except KubectlFailed as error:
        return str(error)
    return None


def _left(cluster: Cluster) -> str | None:
    found = cluster.kubectl("get", "crd,namespace,validatingwebhookconfiguration", "--output=name").split()
    left = [each for each in found if each.endswith(".kueue.x-k8s.io") or "/kueue-" in each]
    return f"{', '.join(left)} are still there" if left else None


def _manifests(cluster: Cluster) -> list[Document]:
    """Kueue's own manifests, for our image and for Jobs only."""
    text = cluster.kubectl("kustomize", str(binaries.kueue_manifests() / "default"))
    return [_fitted(each, cluster) for each in yaml.safe_load_all(text) if each["kind"] != "APIService"]


def _fitted(document: Document, cluster: Cluster) -> Document:
    if "webhooks" in document:
        document["webhooks"] = [hook for hook in document["webhooks"] if _GROUPS & set(hook["rules"][0]["apiGroups"])]
    elif document["kind"] == "ConfigMap":
        document["data"] = {name: _only_jobs(text) for name, text in document["data"].items()}
    elif document["kind"] == "Deployment":
        container = document["spec"]["template"]["spec"]["containers"][0]
        if reference := cluster.image_ref(_IMAGE):
            container |= {"image": reference, "imagePullPolicy": "IfNotPresent"}
        if reference and reference.rpartition("/")[2].startswith(_IMAGE):
            container["command"] = ["/program"]  # our image of it
        container["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
        container["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1}
        document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    return document


def _only_jobs(configuration: str) -> str:
    settings = yaml.safe_load(configuration)
    settings["integrations"]["frameworks"] = ["batch/job"]
    settings["leaderElection"]["leaderElect"] = False
    return yaml.safe_dump(settings)
