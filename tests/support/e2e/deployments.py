"""A ModelDeployment on the real cluster as a user drives and sees it, and versions for it of every kind."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luthier_api.conditions import Condition, find_condition
from luthier_api.modeldeployment import ModelDeploymentStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_api.training import Task
from luthier_artifacts import Metadata, PublishedVersion, StorageConfig, open_registry
from luthier_dev.setup import make_namespace
from luthier_dev.waiting import wait_until
from luthier_serving.compute.model import open_model
from luthier_serving.tasks import OUTPUTS
from support.e2e.load import TEXTS, Load
from support.e2e.stories import Site, apply, modeldeployment
from support.serving.artifact import failing, hungry, make_artifact, swapped

NAME = "reviews"


@dataclass
class Versions:
    """Versions in the registry, each published when it is first asked for, and what each answers."""

    site: Site
    folder: Path
    uri: str
    published: dict[str, PublishedVersion] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)

    def fresh(self, kind: str = "good") -> PublishedVersion:
        """Publish another version of a kind, which no rollout has seen."""
        name = f"{kind}-{len(self.published)}"
        folder = self._artifact(kind)
        storage = StorageConfig(endpoint=self.site.storage_url, credentials_env="E2E_")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("E2E_AWS_ACCESS_KEY_ID", self.site.storage.admin.access_key)
            patch.setenv("E2E_AWS_SECRET_ACCESS_KEY", self.site.storage.admin.secret_key)
            registry = open_registry(self.uri, NAME, storage)
            found = registry.publish(folder, secrets.token_hex(32), Metadata(task=Task.TEXT_CLASSIFICATION))
        self.published[name] = found
        if kind != "hungry":
            model = open_model(folder, "onnxruntime")
            rows = model.predict(TEXTS)
            output = OUTPUTS[model.info.task]
            self.labels[found.version] = {
                text: "" if row.error else str(output.result(text, row.values, model.info)["prediction"])
                for text, row in zip(TEXTS, rows, strict=True)
            }
        return found

    def _artifact(self, kind: str) -> Path:
        good = self.folder / "good"
        if not good.exists():
            good.mkdir()
            make_artifact(good)
        made = self.folder / kind
        if not made.exists():
            if kind == "slow":
                made.mkdir()
                make_artifact(made, hidden=512, layers=12)
            elif kind == "damaged":
                made.mkdir()
                make_artifact(made, hidden=48)  # bytes that no cache holds
            elif kind == "swapped":
                swapped(good, made)
            elif kind == "failing":
                failing(good, made)
            elif kind == "hungry":
                hungry(good, made, gigabytes=3)
            else:
                shutil.copytree(good, made)
        return made


@dataclass
class Deployment:
    """The ModelDeployment, as a user drives and sees it."""

    site: Site
    versions: Versions
    stable: PublishedVersion
    namespace: str
    spec: dict[str, Any] = field(default_factory=dict)

    def apply(self, version: PublishedVersion, **spec: Any) -> None:
        """Ask for a version, with these fields of the spec from now on."""
        self.spec = {**self.spec, **spec}
        model = {
            "uri": version.uri,
            "digest": version.manifest.digest,
            "endpoint": self.site.storage.endpoint,
            "secretRef": {"name": "s3-credentials"},
        }
        document = modeldeployment(NAME, model)
        fields = {**document["spec"], **self.spec}
        document["spec"] = {name: value for name, value in fields.items() if value is not None}
        apply(self.site, self.namespace, document)

    @property
    def raw(self) -> dict[str, Any]:
        found: dict[str, Any] = self.site.kubectl.get("modeldeployment", NAME, "--namespace", self.namespace)
        return found

    @property
    def status(self) -> ModelDeploymentStatus:
        return ModelDeploymentStatus.model_validate(self.raw.get("status", {}))

    def condition(self, type_: ConditionType) -> Condition | None:
        return find_condition(self.status.conditions, type_)

    def wish(self, wish: str) -> None:
        """Steer the rollout by an annotation that names the present generation."""
        generation = self.raw["metadata"]["generation"]
        value = f"luthier.dev/{wish}={generation}#{secrets.token_hex(2)}"
        self.site.kubectl("annotate", "modeldeployment", NAME, "--namespace", self.namespace, "--overwrite", value)

    def until(self, what: str, test: Callable[[ModelDeploymentStatus], bool], timeout_s: float = 240) -> None:
        def missing() -> str | None:
            status = self.status
            ready = find_condition(status.conditions, ConditionType.READY)
            if status.observed_generation == self.raw["metadata"]["generation"] and test(status):
                return None
            return f"{status.rollout}; {ready.message if ready else ''}"

        wait_until(missing, what, timeout_s, interval_s=0.5)

    def until_serving(self, version: PublishedVersion, timeout_s: float = 240) -> None:
        def there(status: ModelDeploymentStatus) -> bool:
            ready = find_condition(status.conditions, ConditionType.READY)
            return bool(ready and ready.status == "True" and status.current_version == version.version)

        self.until(f"{version.version} in service", there, timeout_s)
        self.stable = version

    def until_rolled_back(self, reason: Reason, timeout_s: float = 240) -> str:
        """Wait until the rollout is rolled back for a reason, and the canary is gone; return the sentence."""

        def back(status: ModelDeploymentStatus) -> bool:
            stalled = find_condition(status.conditions, ConditionType.STALLED)
            return bool(stalled and stalled.reason == reason and len(status.revisions) == 1)

        self.until(f"rolled back: {reason}", back, timeout_s)
        stalled, available = self.condition(ConditionType.STALLED), self.condition(ConditionType.AVAILABLE)
        assert stalled and available and available.status == "True"
        print(f"    {stalled.message}")
        return stalled.message

    def pods(self, component: str) -> list[dict[str, Any]]:
        selector = f"luthier.dev/modeldeployment={NAME},app.kubernetes.io/component={component}"
        items = self.site.kubectl.get("pods", "--namespace", self.namespace, "-l", selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def clusters(self) -> list[str]:
        """Names of its Ray clusters that are not being removed."""
        items = self.site.kubectl.get("rayclusters", "--namespace", self.namespace)["items"]
        return [each["metadata"]["name"] for each in items if "deletionTimestamp" not in each["metadata"]]

    def load(self, url: str, **options: Any) -> Load:
        return Load(url, self.versions.labels, **options)


@contextmanager
def deployed(site: Site, folder: Path, namespace: str, **spec: Any) -> Iterator[Deployment]:
    """A ModelDeployment that answers with its first version, in a namespace of its own."""
    site.kubectl("delete", "namespace", namespace, "--ignore-not-found", timeout_s=300)
    make_namespace(site.cluster, site.storage, namespace)
    versions = Versions(site, folder, f"s3://models/{namespace}-{secrets.token_hex(4)}/")
    first = versions.fresh()
    found = Deployment(site, versions, first, namespace)
    found.apply(first, **spec)
    found.until_serving(first, 400)
    yield found
    site.kubectl("delete", "namespace", namespace, "--wait=false")


def told(load: Load) -> None:
    """Print what the load met, for whoever reads the test's output."""
    print(f"    {len(load.answers)} answers, {len(load.failures)} failures, slowest {load.slowest_s:.2f} s")
