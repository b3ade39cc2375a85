"""A revision that runs out of memory: who says so, and that the rollback names it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from luthier_api.documents import RevisionCounts, ServerReport
from luthier_api.reasons import Reason
from luthier_operator.model import names
from luthier_operator.model.parse import pod_view
from luthier_operator.model.views import ApplicationView, PodView
from luthier_operator.plan.modeldeployment import memory
from support.operator.serving import FOLLOWING, START, Cluster, job, serving, version

pytestmark = pytest.mark.unit

# Of Ray 2.60: what Serve says of replicas that ended while they started, killed by Ray's memory monitor ...
BY_RAY = (
    "The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or initial "
    "health check failing. See controller logs for details. Error:\nOutOfMemoryError('1 worker(s) were killed due to "
    "the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: 5f) was 1.91GB / 2.00GB (0.95).')"
)
# ... and killed by a signal.
BY_SIGNAL = (
    "The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or initial "
    "health check failing. See controller logs for details. Error:\nActorDiedError(class_name: "
    '"ServeReplica:rev-1:Revision" error_message: "The actor is dead because its worker process has died. Worker exit '
    "type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. "
    "Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop "
    '--force was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another unexpected error.")'
)
# ... or where the end of the connection is heard of before the end of the process.
BY_SOCKET = (
    "Failed to update the deployments ['Revision'].\nThe deployment failed to start 3 times in a row. Error:\n"
    "ray.exceptions.ActorUnavailableError: The actor ef59 is unavailable: The actor is temporarily unavailable: "
    "RpcError: RPC error: Socket closed rpc_code: 14. The task may or may not have been executed on the actor."
)
UNHEALTHY = "A replica's health check failed. This deployment will be UNHEALTHY until the replica recovers."
DEATH = "1 worker(s) were killed due to the node running low on memory. Ray killed 1 worker(s) based on the policy"


def worker(killed_at: datetime | None = None, limit: str | None = "2Gi") -> PodView:
    return PodView("pod-1", "uid", "Running", START, component="worker", memory_limit=limit, memory_killed_at=killed_at)


def report(kills: int = 0) -> ServerReport:
    return ServerReport(replica="replica-1", ready=True, oom_kills=kills)


@pytest.mark.parametrize(
    ("text", "deaths", "kills", "killed_at", "says"),
    [
        (BY_RAY, [], 0, None, memory.RAN_OUT),
        (UNHEALTHY, [DEATH], 0, None, memory.RAN_OUT),
        ("", [DEATH], 0, None, memory.RAN_OUT),
        (BY_SIGNAL, [], 1, None, memory.RAN_OUT),
        (BY_SIGNAL, [], 0, START - timedelta(minutes=5), memory.RAN_OUT),
        (BY_SIGNAL, [], 0, START - timedelta(hours=5), memory.PERHAPS),
        (BY_SIGNAL, [], 0, None, memory.PERHAPS),
        (BY_SOCKET, [], 1, None, memory.RAN_OUT),
        (BY_SOCKET, [], 0, None, memory.PERHAPS),
        (UNHEALTHY, [], 0, None, ""),
        (UNHEALTHY, [], 3, START, ""),
        ("", [], 3, START, ""),
        ("RuntimeError: LoadError: IntegrityError: one byte differs.\n" + BY_RAY, [DEATH], 1, START, ""),
    ],
)
def test_lack_of_memory_is_named_where_somebody_knows_it(
    text: str, deaths: list[str], kills: int, killed_at: datetime | None, says: str
) -> None:
    found = memory.cause(text, deaths, [report(), report(kills)], [worker(killed_at)], START)
    assert found.startswith(says) and bool(found) == bool(says)
    if says:
        assert "(limit 2Gi)" in found and "raise limits.memory in runtime.resources" in found


def test_without_a_limit_none_is_named_and_the_heads_is_not_meant() -> None:
    pods = [replace(worker(limit="7Gi"), component="head"), worker(limit=None)]
    assert memory.cause(BY_RAY, [], [], pods, START).startswith(f"{memory.RAN_OUT}. ")
    head = replace(worker(START), component="head")
    assert not memory.killed_since([head], None, START)


STEPS = {**FOLLOWING, "rollout": {"steps": [{"trafficPercent": 20, "pauseSeconds": 300}]}}


def beside(spec: dict[str, object] = STEPS) -> Cluster:
    """Return a cluster on which a second version has been put beside the first, and starts."""
    cluster = serving(version("v-a"), spec=spec)
    cluster.pods = (worker(),)
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())
    return cluster


def says(cluster: Cluster, status: str, message: str) -> None:
    """Let Ray Serve say this of the canary."""
    [name] = [name for name in cluster.applications if name != names.SERVER]
    cluster.applications[name] = ApplicationView(status, message)
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())


def rejection(cluster: Cluster) -> tuple[str, str]:
    return cluster.status.rejected[-1].reason, cluster.status.rejected[-1].message


@pytest.mark.parametrize(("message", "kills"), [(BY_RAY, 0), (BY_SIGNAL, 2)])
def test_a_version_that_takes_too_much_memory_when_it_starts_is_rolled_back_with_that_cause(
    message: str, kills: int
) -> None:
    cluster = beside()
    cluster.others = [report(kills)]
    says(cluster, "DEPLOY_FAILED", message)
    assert rejection(cluster) == (
        Reason.REVISION_FAILED,
        "Version v-b failed: it ran out of memory (limit 2Gi). A pod holds two versions during a rollout; raise "
        "limits.memory in runtime.resources.",
    )
    assert cluster.weights() == {"v-a": 100}


def test_a_version_that_takes_too_much_memory_under_load_is_rolled_back_with_figure_and_cause() -> None:
    analysis = {"intervalSeconds": 10, "minRequests": 10, "maxErrorRate": "0.01"}
    cluster = beside({**STEPS, "rollout": {**STEPS["rollout"], "analysis": analysis}})  # type: ignore[dict-item]
    for _ in range(4):
        cluster.ray_works()
        cluster.carry_out(cluster.plan())
        cluster.now += timedelta(seconds=3)
    assert cluster.weights() == {"v-a": 80, "v-b": 20}
    [name] = [name for name in cluster.applications if name != names.SERVER]
    cluster.others = [ServerReport(replica="replica-2", ready=True, deaths={name: DEATH}, window=cluster.layout.window)]
    cluster.counts = {"v-b": RevisionCounts(requests=20, errors=5, latency={30: 15})}
    cluster.now += timedelta(seconds=10)
    cluster.carry_out(cluster.plan())
    reason, message = rejection(cluster)
    assert reason == Reason.ROLLED_BACK
    assert message.startswith("Version v-b was rolled back: 25 % of 20 requests failed, 1 % are allowed; it ran out of")


def test_a_version_that_lost_its_replicas_for_memory_after_it_took_over_gives_the_requests_back_with_that_cause() -> (
    None
):
    cluster = beside(FOLLOWING)
    for _ in range(3):
        cluster.ray_works()
        cluster.carry_out(cluster.plan())
        cluster.now += timedelta(seconds=2)
    assert cluster.weights() == {"v-a": 0, "v-b": 100}
    [name] = [name for name in cluster.applications if name != names.SERVER]
    cluster.others = [ServerReport(replica="replica-2", ready=True, deaths={name: DEATH})]
    says(cluster, "UNHEALTHY", UNHEALTHY)
    cluster.now += timedelta(seconds=5)
    says(cluster, "UNHEALTHY", UNHEALTHY)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    assert rejection(cluster)[1].startswith("Version v-b failed: it ran out of memory (limit 2Gi).")


def test_a_version_beside_which_the_pods_container_was_killed_for_memory_is_rolled_back_at_once() -> None:
    cluster = beside()
    cluster.now += timedelta(seconds=5)
    cluster.pods = (worker(cluster.now),)
    says(cluster, "DEPLOYING", "")
    assert rejection(cluster)[1].startswith(
        "Version v-b failed: it ran out of memory (limit 2Gi), and its pod's container was killed."
    )


def test_an_end_before_the_version_came_is_not_its_fault() -> None:
    cluster = serving(version("v-a"), spec=STEPS)
    cluster.pods = (worker(cluster.now - timedelta(seconds=30)),)
    cluster.job = job(version("v-b"), version("v-a"))
    for _ in range(3):
        cluster.carry_out(cluster.plan())
        cluster.ray_works()
        cluster.now += timedelta(seconds=3)
    assert not cluster.status.rejected and cluster.weights() == {"v-a": 80, "v-b": 20}


@pytest.mark.parametrize("where", ["state", "lastState"])
def test_the_end_of_a_container_at_its_limit_is_read_also_after_it_has_started_again(where: str) -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:00Z"}}
    raw = {
        "metadata": {"name": "p", "uid": "u", "labels": {names.COMPONENT: "worker"}},
        "spec": {"containers": [{"name": "ray-worker", "resources": {"limits": {"memory": "2Gi"}}}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "ray-worker", where: ended}]},
    }
    assert pod_view(raw).memory_killed_at == START
    ended["terminated"]["reason"] = "Error"
    assert pod_view(raw).memory_killed_at is None


@pytest.mark.parametrize(
    ("told_to_go", "reason"),
    [("2026-01-01T00:00:00Z", "Error"), ("2025-12-31T23:59:41Z", "Error"), ("2026-01-01T00:00:01Z", "OOMKilled")],
)
def test_the_end_of_a_pod_that_was_told_to_go_is_none_for_memory(told_to_go: str, reason: str) -> None:
    """Whatever ends it: containerd says OOMKilled where the kernel has ended a process of the container once before."""
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": "2025-12-31T00:00:00Z"}
    ended["finishedAt"] = "2026-01-01T00:00:00Z"
    gone_by = datetime.fromisoformat(told_to_go) + timedelta(seconds=30)
    raw = {
        "metadata": {
            "name": "p",
            "uid": "u",
            "labels": {names.COMPONENT: "worker"},
            "deletionTimestamp": gone_by.isoformat(),
            "deletionGracePeriodSeconds": 30,
        },
        "spec": {"containers": [{"name": "ray-worker"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": "ray-worker", "state": {"terminated": ended}}],
        },
    }
    pod = pod_view(raw)
    assert (pod.terminated_reason, pod.memory_killed_at) == (reason, START if reason == "OOMKilled" else None)
