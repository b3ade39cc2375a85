"""R1: the operator as tutorials write it: handlers for create and update, a synchronous client, a timer per resource.

One Job per resource (ours has two), labelled as ours so that the same pods are played. The timer looks at the Job every
ten seconds until it has ended; the status says what came of it.
"""

import json
from typing import Any

import kopf
import kubernetes

kubernetes.config.load_kube_config()
_LABELS = {"app.kubernetes.io/managed-by": "luthier", "app.kubernetes.io/component": "train"}


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.level = 30


@kopf.on.create("luthier.dev", "v1alpha1", "finetunejobs")
def create(spec: kopf.Spec, name: str, namespace: str, patch: kopf.Patch, **_: Any) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{name}-train", "labels": _LABELS},
        "spec": {
            "backoffLimit": 3,
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "main",
                            "image": "trainer:1",
                            "command": ["train"],
                            "env": [{"name": "SPEC", "value": json.dumps(dict(spec))}],
                            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                        }
                    ],
                },
            },
        },
    }
    kopf.adopt(job)
    kubernetes.client.BatchV1Api().create_namespaced_job(namespace, job)
    patch.status["phase"] = "Training"


@kopf.on.update("luthier.dev", "v1alpha1", "finetunejobs", field="spec")
def update(name: str, namespace: str, patch: kopf.Patch, **_: Any) -> None:
    kubernetes.client.BatchV1Api().delete_namespaced_job(f"{name}-train", namespace, propagation_policy="Background")
    patch.status["phase"] = "Changed"


@kopf.timer("luthier.dev", "v1alpha1", "finetunejobs", interval=10, initial_delay=10)
def look(name: str, namespace: str, status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    if status.get("phase") in ("Succeeded", "Failed"):
        return
    found = kubernetes.client.BatchV1Api().read_namespaced_job(f"{name}-train", namespace).status
    if found and found.succeeded:
        patch.status["phase"] = "Succeeded"
    elif found and found.failed:
        patch.status["phase"] = "Failed"
