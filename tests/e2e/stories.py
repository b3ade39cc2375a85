"""Specs and data of the end-to-end tests: small, real, and the same for all of them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier_dev import samples
from luthier_dev.addons import S3, s3_client
from luthier_dev.cluster import Cluster
from luthier_dev.kubectl import Kubectl

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MODEL = "s3://models/base/minilm-l6"
ROWS = 240


@dataclass(frozen=True)
class Site:
    """A cluster with the chart installed, and its storage."""

    cluster: Cluster
    storage: S3
    storage_url: str
    """The S3 server as seen from this machine; `storage.endpoint` is for specs."""

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    @property
    def s3(self) -> S3Client:
        """A client with the identity that may do everything."""
        return s3_client(self.storage_url, self.storage.admin)


def reviews(rows: int = ROWS) -> list[dict[str, str]]:
    """The first real reviews, as many of each label."""
    with samples.reviews_csv().train.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    each = [[row for row in found if row["label"] == label][: rows // 2] for label in ("negative", "positive")]
    return [row for pair in zip(*each, strict=True) for row in pair]


def as_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["text", "label"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def upload(site: Site) -> None:
    """The base model and the reviews; an upload that was made before is made again, which costs a second."""
    for file in sorted(samples.base_model().iterdir()):
        site.s3.upload_file(str(file), "models", f"base/minilm-l6/{file.name}")
    site.s3.put_object(Bucket="data", Key="e2e/reviews.csv", Body=as_csv(reviews()))


def finetunejob(site: Site, name: str, folder: str, **changes: Any) -> dict[str, Any]:
    """A FineTuneJob that trains for seconds; `changes` replace fields of its spec."""
    spec: dict[str, Any] = {
        "model": {"uri": MODEL},
        "dataset": {
            "train": {"uri": "s3://data/e2e/reviews.csv"},
            "preprocessing": {"maxLength": 48},
            "split": {"fraction": "0.2"},
        },
        "hyperparameters": {"epochs": 1, "learningRate": "1e-4", "batchSize": 32},
        "gpusPerNode": 0,
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
        "prepareResources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "output": {
            "name": name,
            "uri": f"s3://models/{folder}/",
            "endpoint": site.storage.endpoint,
            "secretRef": {"name": "s3-credentials"},
        },
    }
    return resource("FineTuneJob", name, {**spec, **changes})


def modeldeployment(name: str, model: dict[str, Any]) -> dict[str, Any]:
    runtime = {"resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}}
    return resource("ModelDeployment", name, {"model": model, "runtime": runtime, "replicas": 1})


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "luthier.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def apply(site: Site, namespace: str, *documents: dict[str, Any]) -> None:
    """kubectl apply, as a user does it."""
    text = "\n---\n".join(json.dumps(document) for document in documents)
    site.kubectl("apply", "--namespace", namespace, "--filename=-", stdin=text)


def jobs(site: Site, namespace: str) -> dict[str, str]:
    """{uid: name} of all Jobs of the namespace."""
    items = site.kubectl.get("jobs", "--namespace", namespace)["items"]
    return {item["metadata"]["uid"]: item["metadata"]["name"] for item in items}
