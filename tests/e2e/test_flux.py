"""The main job by Git alone: Flux takes every change from a repository, and what it says is what a pipeline acts on."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from luthier_dev import flux, network
from luthier_dev.setup import make_namespace
from luthier_dev.traffic import VERSION_HEADER
from luthier_dev.waiting import wait_until
from support.e2e import git_server
from support.e2e.git_server import Repository
from support.e2e.stories import Site, finetunejob, modeldeployment, upload
from support.pages import blocks

pytestmark = [pytest.mark.gitops, pytest.mark.timeout(1200)]

NAMESPACE = "t-flux"
NAME = "reviews"
SOURCE = "source.toolkit.fluxcd.io/v1"
KUSTOMIZE = "kustomize.toolkit.fluxcd.io/v1"
PAGE = Path(__file__).parents[2] / "docs" / "gitops.md"
DEPLOYMENT = {"apiVersion": "luthier.dev/v1alpha1", "kind": "ModelDeployment", "name": NAME, "namespace": NAMESPACE}
LEARNING = {"epochs": 1, "learningRate": "1e-4", "batchSize": 32}


@dataclass
class Pipeline:
    """The repository, and what Flux made of it.

    docs/gitops.md explains the two Kustomizations: a training takes long, and nobody waits for it; the one with the
    ModelDeployment is ready when the version answers requests.
    """

    site: Site
    repository: Repository
    folder: str

    def push(self, message: str, *, training: dict[str, Any] | None = None, **serving: Any) -> str:
        """Push both manifests, with these fields of their specs."""
        job = finetunejob(self.site, NAME, self.folder, **(training or {}))
        model = {"fineTuneJobRef": {"name": NAME, **serving.pop("ref", {})}}
        deployment = modeldeployment(NAME, model)
        deployment["spec"].update(serving)
        return self.repository.push(
            message,
            {
                "training/job.yaml": json.dumps(job, indent=2),
                "serving/deployment.yaml": json.dumps(deployment, indent=2),
            },
        )

    def kustomization(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.site.kubectl.get("kustomization", name, "--namespace", NAMESPACE)
        return found

    def until(self, name: str, commit: str, status: str, says: str = "", timeout_s: float = 400) -> str:
        """Wait until a Kustomization says so of a commit; return its message."""
        seen: list[str] = []

        def missing() -> str | None:
            found = self.kustomization(name)
            ready = next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == "Ready"), None)
            if ready is None:
                return "no condition"
            seen.append(ready["message"])
            of = found["status"].get("lastAttemptedRevision", "")
            if of.endswith(commit) and ready["status"] == status and says in ready["message"]:
                return None
            return f"{of}: {ready['status']} {ready['reason']}: {ready['message']}"

        wait_until(missing, f"{name} to be {status} at {commit[:8]}", timeout_s, interval_s=0.5)
        return seen[-1]

    def version(self) -> str:
        """The version that answers."""
        with self.site.cluster.url_for_service(NAMESPACE, f"{NAME}-serve-svc", 8000) as url:
            answer = httpx.post(f"{url}/predict", json={"text": "It broke."}, timeout=30, trust_env=False)
        return answer.headers.get(VERSION_HEADER, f"status {answer.status_code}")

    def job(self, what: str, test: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for the FineTuneJob."""
        seen: list[dict[str, Any]] = []

        def missing() -> str | None:
            seen.append(self.site.kubectl.get("finetunejob", NAME, "--namespace", NAMESPACE))
            return None if test(seen[-1]) else json.dumps(seen[-1].get("status", {}).get("conditions"))

        wait_until(missing, what, 400, interval_s=0.5)
        return seen[-1]


@pytest.fixture(scope="module")
def pipeline(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    site.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=300)
    upload(site)
    make_namespace(site.cluster, site.storage, NAMESPACE)
    installed = flux.install(site.cluster)
    with git_server.serve(tmp_path_factory.mktemp("git"), network.HOST_ADDRESS) as repository:
        found = Pipeline(site, repository, f"flux-{secrets.token_hex(4)}")
        found.push("Train and serve")
        source = {"kind": "GitRepository", "name": NAME}
        spec = {
            "interval": "1h",
            "retryInterval": "2s",
            "prune": True,
            "sourceRef": source,
            "targetNamespace": NAMESPACE,
        }
        serving = {"path": "./serving", "healthChecks": [DEPLOYMENT], "timeout": "3m", **spec}
        site.kubectl.apply(
            _flux(SOURCE, "GitRepository", NAME, {"url": repository.url, "interval": "1s", "ref": {"branch": "main"}}),
            _flux(KUSTOMIZE, "Kustomization", "training", {"path": "./training", "wait": False, **spec}),
            _flux(KUSTOMIZE, "Kustomization", "serving", serving),
        )
        yield found
        for name in ("serving", "training"):
            site.kubectl("delete", "kustomization", name, "--namespace", NAMESPACE, timeout_s=120)
        site.kubectl("delete", "gitrepository", NAME, "--namespace", NAMESPACE, timeout_s=60)
    if installed:
        flux.remove(site.cluster)
    site.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _flux(api: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def test_a_push_trains_and_serves_and_its_revert_serves_the_old_version_in_seconds(pipeline: Pipeline) -> None:
    commit = pipeline.repository.push("Say what this is", {"README.md": "Reviews"})
    pipeline.until("training", commit, "True")
    pipeline.until("serving", commit, "True")
    first = pipeline.version()

    commit = pipeline.push("Learn faster", training={"hyperparameters": {**LEARNING, "learningRate": "2e-4"}})
    pipeline.job("a second version", lambda job: len(job.get("status", {}).get("versions", [])) == 2)
    wait_until(lambda: None if pipeline.version() != first else f"{first} answers", "the second version", 240)
    pipeline.until("serving", commit, "True")
    jobs = pipeline.site.kubectl("get", "jobs", "--namespace", NAMESPACE, "--output=name")

    began = time.monotonic()
    commit = pipeline.repository.revert()
    wait_until(lambda: None if pipeline.version() == first else "the second one answers", "the first version", 120)
    print(f"    from the push of the revert to the old version: {time.monotonic() - began:.1f} s")
    pipeline.until("serving", commit, "True")
    assert pipeline.site.kubectl("get", "jobs", "--namespace", NAMESPACE, "--output=name") == jobs, "no Job was needed"


def test_a_spec_that_the_api_server_refuses_is_said_by_the_kustomization(pipeline: Pipeline) -> None:
    answers = pipeline.version()
    commit = pipeline.push("Ask for nonsense", training={"numNodes": 0})
    print("   ", pipeline.until("training", commit, "False", "numNodes", timeout_s=60))
    commit = pipeline.repository.revert()
    pipeline.until("training", commit, "True", timeout_s=60)
    assert pipeline.version() == answers


def test_a_version_that_does_not_exist_is_not_ready_at_once_with_our_sentence(pipeline: Pipeline) -> None:
    answers = pipeline.version()
    began = time.monotonic()
    commit = pipeline.push("Pin a version", ref={"version": "20200101-000000-00000000"})
    message = pipeline.until("serving", commit, "False", "status: 'Failed'", timeout_s=60)
    print(f"    after {time.monotonic() - began:.1f} s: {message}")
    assert pipeline.version() == answers
    pipeline.until("serving", pipeline.repository.revert(), "True")


def test_a_failed_gate_keeps_the_version_and_the_deployment_is_ready(pipeline: Pipeline) -> None:
    answers = pipeline.version()
    gates = {"gates": [{"metric": "eval_accuracy", "operator": "GTE", "threshold": "0.999"}]}
    commit = pipeline.push("Ask for the impossible", training={"evaluation": gates})
    failed = pipeline.job("the gate to fail", lambda job: _reason(job) == "GateFailed")
    print("   ", next(c["message"] for c in failed["status"]["conditions"] if c["type"] == "Ready"))
    pipeline.until("serving", commit, "True")
    assert pipeline.version() == answers
    pipeline.until("serving", pipeline.repository.revert(), "True")


def test_suspending_by_a_commit_stops_the_server_and_the_revert_brings_it_back(pipeline: Pipeline) -> None:
    (expressions,) = [each.text for each in blocks(PAGE) if each.text.startswith("healthCheckExprs:")]
    patch = json.dumps({"spec": yaml.safe_load(expressions)})
    pipeline.site.kubectl(
        *("patch", "kustomization", "serving", "--namespace", NAMESPACE, "--type=merge", f"--patch={patch}")
    )
    commit = pipeline.push("Stop serving", suspend=True)
    pipeline.until("serving", commit, "True", timeout_s=60)
    where = ("--namespace", NAMESPACE, "--ignore-not-found", "--output=name")
    wait_until(lambda: pipeline.site.kubectl("get", "rayservice", NAME, *where) or None, "no server", 120)

    pipeline.until("serving", pipeline.repository.revert(), "True")
    assert not pipeline.version().startswith("status")

    pipeline.until("serving", pipeline.push("Pin a version", ref={"version": "none"}), "False", timeout_s=60)
    pipeline.until("serving", pipeline.repository.revert(), "True")


def _reason(job: dict[str, Any]) -> str:
    ready = next((c for c in job.get("status", {}).get("conditions", []) if c["type"] == "Ready"), {})
    return str(ready.get("reason", ""))
