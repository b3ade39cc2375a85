"""Specs and data of the end-to-end tests: small, real, and the same for all of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier_api.conditions import Condition, find_condition
from luthier_api.finetunejob import FineTuneJobStatus
from luthier_api.reasons import ConditionType
from luthier_dev import samples
from luthier_dev.addons import S3, s3_client
from luthier_dev.cluster import Cluster
from luthier_dev.kubectl import Kubectl
from luthier_dev.waiting import wait_until
from luthier_dev.watching import Watched, describe_training

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


@dataclass(frozen=True)
class Training:
    """A FineTuneJob seen from outside: what its status says, and what lies in its folder of the bucket."""

    site: Site
    namespace: str
    name: str
    folder: str

    @property
    def watched(self) -> Watched:
        return Watched(self.site.kubectl, self.namespace, "finetunejob", self.name)

    @property
    def status(self) -> FineTuneJobStatus:
        return FineTuneJobStatus.model_validate(self.watched.read().get("status", {}))

    def condition(self, type_: ConditionType = ConditionType.READY) -> Condition | None:
        return find_condition(self.status.conditions, type_)

    def items(self, kind: str, *flags: str) -> list[dict[str, Any]]:
        """Its training Jobs or pods."""
        selector = f"luthier.dev/finetunejob={self.name},app.kubernetes.io/component=train"
        return list(self.site.kubectl.get(kind, "--namespace", self.namespace, "-l", selector, *flags)["items"])

    @property
    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.items("pods")]

    @property
    def job(self) -> dict[str, Any]:
        """Its one training Job."""
        (found,) = self.items("jobs", "--show-managed-fields")
        return found

    def manifests(self, below: str) -> list[str]:
        """Keys of the manifests below a folder of the model: what has none is not whole."""
        prefix = f"{self.folder}/{self.name}/{below}/"
        found = self.site.s3.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in found if entry["Key"].endswith("/manifest.json")]

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints that are whole."""
        return sorted(int(key.split("/")[-2]) for key in self.manifests("checkpoints"))

    def until(self, test: Callable[[FineTuneJobStatus], bool], what: str, timeout_s: float = 400) -> FineTuneJobStatus:
        """Wait until the status passes the test; return it."""
        seen: list[FineTuneJobStatus] = []

        def missing() -> str | None:
            seen.append(self.status)
            if test(seen[-1]):
                return None
            ready = find_condition(seen[-1].conditions, ConditionType.READY)
            return f"{describe_training(seen[-1].to_wire())}; {ready.reason}: {ready.message}" if ready else "no status"

        wait_until(missing, f"{self.name} to be {what}", timeout_s, interval_s=0.3)
        return seen[-1]

    def until_reason(self, reason: str, timeout_s: float = 400) -> str:
        """Wait until condition Ready has the reason; return its message."""
        found = (ConditionType.READY, reason)
        status = self.until(lambda s: found in [(c.type, c.reason) for c in s.conditions], reason, timeout_s)
        return next(c.message for c in status.conditions if c.type == ConditionType.READY)

    def until_step(self, least: int) -> None:
        self.until(lambda s: s.progress is not None and s.progress.step >= least, f"at step {least}")

    def until_resumed(self, least: int) -> int:
        """Wait until the status tells of a pod that began at a checkpoint of that step or later; return its step."""

        def resumed_from(status: FineTuneJobStatus) -> int:
            return (status.checkpoint.resumed_from if status.checkpoint else None) or -1

        return resumed_from(self.until(lambda s: resumed_from(s) >= least, "resumed"))

    def until_published(self) -> FineTuneJobStatus:
        """Wait for the version; there is one, also in the bucket."""
        self.watched.wait_until_ready(600, describe_training)
        status = self.status
        assert len(self.manifests("versions")) == len(status.versions) == 1
        return status

    def suspend(self, wanted: bool) -> None:
        patch = json.dumps({"spec": {"suspend": wanted}})
        where = ("--namespace", self.namespace, "--type=merge", "-p", patch)
        self.site.kubectl("patch", "finetunejob", self.name, *where)
