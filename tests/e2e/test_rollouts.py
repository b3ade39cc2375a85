"""Rollouts and outages on a real cluster under constant load, every answer checked: `make rollouts`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from luthier_api.reasons import ConditionType, Reason
from luthier_artifacts import PublishedVersion
from luthier_dev import network
from luthier_dev.processes import free_ports
from luthier_dev.waiting import wait_until
from support.e2e.deployments import NAME, Deployment, deployed, told
from support.e2e.load import Load
from support.e2e.stories import Site, apply

pytestmark = [pytest.mark.rollouts, pytest.mark.timeout(900)]

NAMESPACE = "t-rollouts"
STEPS = [{"trafficPercent": 20, "pauseSeconds": 10}, {"trafficPercent": 50, "pauseSeconds": 10}]
ANALYSIS = {"intervalSeconds": 2, "minRequests": 20}


@pytest.fixture(scope="module")
def deployment(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    rollout = {"steps": STEPS, "analysis": {**ANALYSIS, "maxErrorRate": "0.01"}}
    with deployed(site, tmp_path_factory.mktemp("versions"), NAMESPACE, rollout=rollout) as found:
        yield found


@pytest.fixture
def url(deployment: Deployment) -> Iterator[str]:
    with deployment.site.cluster.url_for_service(NAMESPACE, f"{NAME}-serve-svc", 8000) as found:
        yield found


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


def test_with_redis_the_heads_death_cuts_its_connections_and_fails_nothing_else(
    deployment: Deployment, url: str, redis: str
) -> None:
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
    # The head has a proxy of its own: a connection that leads through it ends with it.
    cut = [each for each in load.failures if "reset by peer" in each or "disconnected" in each]
    assert load.failures == cut and len(cut) <= load.clients


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
