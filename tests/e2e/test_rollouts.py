"""Rollouts and outages on a real cluster under constant load, every answer checked: `make rollouts`."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luthier_api.conditions import Condition, find_condition
from luthier_api.modeldeployment import ModelDeploymentStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_api.training import Task
from luthier_artifacts import Metadata, PublishedVersion, StorageConfig, open_registry
from luthier_dev import network
from luthier_dev.processes import free_ports
from luthier_dev.setup import make_namespace
from luthier_dev.waiting import wait_until
from luthier_serving.compute.model import open_model
from luthier_serving.tasks import OUTPUTS
from support.e2e.load import TEXTS, Load
from support.e2e.stories import Site, apply, modeldeployment
from support.serving.artifact import failing, hungry, make_artifact, swapped

pytestmark = [pytest.mark.rollouts, pytest.mark.timeout(900)]

NAMESPACE = "t-rollouts"
NAME = "reviews"
STEPS = [{"trafficPercent": 20, "pauseSeconds": 10}, {"trafficPercent": 50, "pauseSeconds": 10}]
ANALYSIS = {"intervalSeconds": 2, "minRequests": 20}


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
        document["spec"].update(self.spec)
        apply(self.site, NAMESPACE, document)

    @property
    def raw(self) -> dict[str, Any]:
        found: dict[str, Any] = self.site.kubectl.get("modeldeployment", NAME, "--namespace", NAMESPACE)
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
        self.site.kubectl("annotate", "modeldeployment", NAME, "--namespace", NAMESPACE, "--overwrite", value)

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
        items = self.site.kubectl.get("pods", "--namespace", NAMESPACE, "-l", selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def clusters(self) -> list[str]:
        """Names of its Ray clusters that are not being removed."""
        items = self.site.kubectl.get("rayclusters", "--namespace", NAMESPACE)["items"]
        return [each["metadata"]["name"] for each in items if "deletionTimestamp" not in each["metadata"]]

    def load(self, url: str, **options: Any) -> Load:
        return Load(url, self.versions.labels, **options)


@pytest.fixture(scope="module")
def deployment(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    site.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=300)
    make_namespace(site.cluster, site.storage, NAMESPACE)
    versions = Versions(site, tmp_path_factory.mktemp("versions"), f"s3://models/rollouts-{secrets.token_hex(4)}/")
    first = versions.fresh()
    found = Deployment(site, versions, first)
    found.apply(first, rollout={"steps": STEPS, "analysis": {**ANALYSIS, "maxErrorRate": "0.01"}})
    found.until_serving(first, 400)
    yield found
    site.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def url(deployment: Deployment) -> Iterator[str]:
    with deployment.site.cluster.url_for_service(NAMESPACE, f"{NAME}-serve-svc", 8000) as found:
        yield found


def told(load: Load) -> None:
    """Print what the load met, for whoever reads the test's output."""
    print(f"    {len(load.answers)} answers, {len(load.failures)} failures, slowest {load.slowest_s:.2f} s")


def test_a_canary_to_its_end(deployment: Deployment, url: str) -> None:
    old, new = deployment.stable, deployment.versions.fresh()
    with deployment.load(url) as load:
        deployment.apply(new)
        shares = {}
        for step in (1, 2):
            deployment.until(f"step {step}", lambda s, step=step: bool(s.rollout and s.rollout.step == step))  # type: ignore[misc]
            # The weights reach the replicas within a second or two; each step lasts for ten.
            since = load.now + 3
            wait_until(lambda since=since: None if load.now > since + 5 else "more to count", "5 s of load", 30)  # type: ignore[misc]
            found = load.versions(since, since + 5)
            shares[step] = found[new.version] / found.total()
        deployment.until_serving(new)
    told(load)
    print(f"    shares: {shares}")
    assert load.failures == []
    assert abs(shares[1] - 0.2) < 0.03 and abs(shares[2] - 0.5) < 0.03
    assert set(load.versions()) == {old.version, new.version}
    assert set(load.versions(since=load.now - 3)) == {new.version}


@pytest.mark.parametrize(
    ("kind", "rollout", "reason", "says"),
    [
        ("failing", {"analysis": {**ANALYSIS, "maxErrorRate": "0.01"}}, Reason.ROLLED_BACK, "requests failed"),
        ("slow", {"analysis": {**ANALYSIS, "maxP99Ratio": "3"}}, Reason.ROLLED_BACK, "its p99 is"),
        (
            "swapped",
            {"mirror": {"percent": 50}, "analysis": {**ANALYSIS, "minRequests": 5, "minAgreement": "0.95"}},
            Reason.ROLLED_BACK,
            "it agrees with the revision in service on 0 %",
        ),
        ("damaged", {}, Reason.REVISION_FAILED, "model.onnx"),
        ("hungry", {}, Reason.REVISION_FAILED, "ran out of memory (limit "),
    ],
    ids=["errors", "latency", "disagreement", "damaged", "memory"],
)
def test_a_canary_is_rolled_back_and_no_client_meets_it(
    deployment: Deployment, url: str, kind: str, rollout: dict[str, Any], reason: Reason, says: str
) -> None:
    bad = deployment.versions.fresh(kind)
    if kind == "damaged":
        damage(deployment.site, bad)
    fields = {"steps": STEPS, "progressDeadlineSeconds": 120, **rollout}
    steps = [{"trafficPercent": 0, "pauseSeconds": 20}, *STEPS] if "mirror" in rollout else STEPS
    with deployment.load(url) as load:
        deployment.apply(bad, rollout={**fields, "steps": steps})
        message = deployment.until_rolled_back(reason)
        deployment.apply(deployment.stable)
        deployment.until_serving(deployment.stable)
    told(load)
    assert says in message and "still answers requests" in message
    assert load.failures == []


def damage(site: Site, version: PublishedVersion) -> None:
    """Change one byte of a published version."""
    bucket, _, prefix = version.uri.removeprefix("s3://").partition("/")
    key = f"{prefix}/model.onnx"
    content = site.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    site.s3.put_object(Bucket=bucket, Key=key, Body=content[:-1] + bytes([content[-1] ^ 1]))


def test_abort_and_a_new_version_in_the_middle(deployment: Deployment, url: str) -> None:
    one, two = deployment.versions.fresh(), deployment.versions.fresh()
    manual = {"steps": [{"trafficPercent": 30, "pause": "Manual"}]}
    with deployment.load(url) as load:
        deployment.apply(one, rollout=manual)
        deployment.until("its share", lambda s: bool(s.rollout and s.rollout.weight == 30))
        deployment.apply(two)
        deployment.until("the next one's share", lambda s: bool(s.rollout and s.rollout.weight == 30))
        assert deployment.status.revisions[-1].version == two.version
        deployment.wish("abort")
        assert "luthier.dev/abort" in deployment.until_rolled_back(Reason.ROLLED_BACK)
        deployment.apply(deployment.stable)
        deployment.until_serving(deployment.stable)
    told(load)
    assert load.failures == []
    assert set(load.versions()) == {deployment.stable.version, one.version, two.version}


def test_in_place(deployment: Deployment, url: str) -> None:
    old, new = deployment.stable, deployment.versions.fresh()
    with deployment.load(url) as load:
        deployment.apply(new, rollout={"strategy": "InPlace"})
        deployment.until_serving(new)
        began = load.now
        deployment.apply(old)
        deployment.until_serving(old)
        print(f"    reverted in {load.now - began:.1f} s")
    told(load)
    assert load.failures == []


def test_from_one_replica_to_three_and_back(deployment: Deployment, url: str) -> None:
    with deployment.load(url) as load:
        for replicas in (3, 1):
            deployment.apply(deployment.stable, replicas=replicas, rollout={"steps": STEPS})
            deployment.until(f"{replicas} ready", lambda s, n=replicas: s.ready_replicas == n and s.replicas == n)  # type: ignore[misc]
    told(load)
    assert load.failures == []


def test_an_operator_that_restarts_in_the_middle(deployment: Deployment, url: str) -> None:
    new = deployment.versions.fresh()
    with deployment.load(url) as load:
        deployment.apply(new, rollout={"steps": STEPS})
        deployment.until("step 1", lambda s: bool(s.rollout and s.rollout.step == 1))
        deployment.site.kubectl("rollout", "restart", "deployment/luthier", "--namespace", "luthier-system")
        deployment.until_serving(new)
    told(load)
    assert load.failures == []


def kill_replica(deployment: Deployment, pod: str) -> None:
    """End the server replica's process in a pod, as a crash does."""
    # In brackets, so that the shell itself is not found by its own command line.
    found = "grep -q '[S]erveReplica:server' $p/cmdline 2>/dev/null"
    script = f"for p in /proc/[0-9]*; do if {found}; then kill -9 ${{p#/proc/}}; fi; done"
    deployment.site.kubectl("exec", "--namespace", NAMESPACE, pod, "-c", "ray-worker", "--", "sh", "-c", script)


def test_the_only_replica_is_killed(deployment: Deployment, url: str) -> None:
    with deployment.load(url) as load:
        deployment.until("at rest", lambda s: s.ready_replicas == 1)
        kill_replica(deployment, deployment.pods("worker")[0]["metadata"]["name"])
        wait_until(lambda: None if load.now > 25 else "the load goes on", "25 s of load", 60)
        deployment.until("well again", lambda s: s.ready_replicas == 1)
    told(load)
    assert load.failures == [] and load.slowest_s <= 20


def test_one_of_two_replicas_is_killed_and_one_of_two_pods_is_drained(deployment: Deployment, url: str) -> None:
    deployment.apply(deployment.stable, replicas=2)
    deployment.until("2 ready", lambda s: s.ready_replicas == 2)
    with deployment.load(url) as load:
        kill_replica(deployment, deployment.pods("worker")[0]["metadata"]["name"])
        deployment.until("well again", lambda s: s.ready_replicas == 2, 120)
        for pod in deployment.pods("worker")[:1]:
            evict(deployment.site, pod["metadata"]["name"])
        deployment.until("one fewer", lambda s: s.ready_replicas == 1, 60)
        deployment.until("two again", lambda s: s.ready_replicas == 2, 180)
    told(load)
    assert load.failures == []


def evict(site: Site, pod: str) -> None:
    """Evict a pod, as draining its node does."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    site.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_blue_green_and_another_pod_shape_move_to_a_second_cluster(deployment: Deployment, url: str) -> None:
    new = deployment.versions.fresh()
    deployment.apply(deployment.stable, replicas=1)
    deployment.until("1 ready", lambda s: s.ready_replicas == 1)
    with deployment.load(url) as load:
        deployment.apply(new, rollout={"strategy": "BlueGreen"})
        deployment.until_serving(new, 400)
        # Connections that clients keep go to the old cluster until KubeRay removes it, a minute later.
        only_new = lambda: set(load.versions(since=load.now - 3)) == {new.version}  # noqa: E731
        wait_until(lambda: None if only_new() else "the old cluster answers too", "the new version alone", 120)
    told(load)
    assert load.failures == []


def test_an_edit_back_while_a_second_cluster_comes_up_serves_on(deployment: Deployment, url: str) -> None:
    with deployment.load(url) as load:
        deployment.apply(deployment.versions.fresh(), rollout={"strategy": "BlueGreen"})
        wait_until(lambda: None if len(deployment.clusters()) == 2 else "one cluster", "a second cluster", 60)
        deployment.apply(deployment.stable)

        # KubeRay compares the spec with the cluster that comes up, not with the one that answers: it builds a third.
        deployment.until_serving(deployment.stable)
        wait_until(lambda: None if len(deployment.clusters()) == 1 else "several clusters", "one cluster", 240)
    told(load)
    assert load.failures == []
    assert set(load.versions()) == {deployment.stable.version}


@pytest.fixture
def redis() -> Iterator[str]:
    """The address of a Redis that the cluster's pods reach, with a password, for as long as the test lasts."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server here: apt-get install redis-server")
    address, port = network.HOST_ADDRESS, free_ports(1)[0]
    options = {"port": port, "bind": address, "requirepass": "secret", "save": "", "appendonly": "no"}
    argv = [program, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        yield f"{address}:{port}"
        process.terminate()


def test_with_redis_the_heads_death_fails_no_request(deployment: Deployment, url: str, redis: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"password": "secret"}}
    apply(deployment.site, NAMESPACE, secret)
    available = {"redis": {"address": redis, "secretRef": {"name": "redis"}}}
    with deployment.load(url) as load:
        deployment.apply(deployment.stable, rollout={"steps": STEPS}, highAvailability=available)
        deployment.until_serving(deployment.stable, 400)
    told(load)
    assert load.failures == [], "the switch to a cluster with Redis"
    worker = deployment.pods("worker")[0]["metadata"]["uid"]
    with deployment.load(url) as load:
        kill_head(deployment)
        wait_until(lambda: None if load.now > 60 else "the load goes on", "60 s of load", 90)
        deployment.until("well again", lambda s: s.ready_replicas == 1)
    told(load)
    assert deployment.pods("worker")[0]["metadata"]["uid"] == worker, "the replica went on"
    assert load.failures == []


def kill_head(deployment: Deployment) -> None:
    """Delete the head's pod at once, as the loss of its node does."""
    head = deployment.pods("head")[0]["metadata"]["name"]
    where = ("--namespace", NAMESPACE, "--grace-period=0", "--force")
    deployment.site.kubectl("delete", "pod", head, *where)


def test_without_redis_the_heads_death_is_an_outage_that_ends_by_itself(deployment: Deployment, url: str) -> None:
    deployment.spec.pop("highAvailability", None)
    deployment.apply(deployment.stable)
    deployment.until_serving(deployment.stable, 400)
    seconds: list[tuple[int, bool]] = []

    def watched(load: Load) -> str | None:
        """Note second by second whether Available is said; enough is seen once it has come back."""
        available = deployment.condition(ConditionType.AVAILABLE)
        seconds.append((int(load.now), bool(available and available.status == "True")))
        over = any(not said for _, said in seconds) and seconds[-1][1]
        return None if over or load.now > 180 else "Available is as before"

    with deployment.load(url) as load:
        kill_head(deployment)
        wait_until(lambda: watched(load), "the outage to be over", 240, interval_s=1)
        deployment.until("well again", lambda s: s.ready_replicas == 1, 120)
    told(load)
    unsaid = [at for at, said in seconds if not said]
    print(f"    Available was untrue in seconds {unsaid[:1]} to {unsaid[-1:]}")
    print(f"    failures: {load.failures[:1]} to {load.failures[-1:]}")
    with deployment.load(url) as load:
        wait_until(lambda: None if load.now > 10 else "the load goes on", "10 s of load", 30)
    assert load.failures == []
