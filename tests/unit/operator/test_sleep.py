"""A server that may have no replica: when it is kept awake, and what is said of it while it sleeps."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_api.documents import ModelState, ReplicaStart, ServerReport
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests.rayservice import disruption_budget
from luthier_operator.model import names
from luthier_operator.model.views import ApplicationView, PodView
from support.operator.serving import DEFAULTS, FOLLOWING, Cluster, job, serving, version

pytestmark = pytest.mark.unit

SLEEPS = {**FOLLOWING, "autoscaling": {"minReplicas": 0, "maxReplicas": 3}}


def least(cluster: Cluster, application: str = names.SERVER) -> int:
    """The replicas that Ray Serve keeps of an application at the fewest."""
    return int(options(cluster, application)["autoscaling_config"]["min_replicas"])


def options(cluster: Cluster, application: str = names.SERVER) -> dict[str, Any]:
    entries = json.loads(cluster.manifest["spec"]["serveConfigV2"])["applications"]
    (found,) = (entry["deployments"][0] for entry in entries if entry["name"] == application)
    return dict(found)


def falls_asleep(cluster: Cluster) -> None:
    """Ray Serve takes the last replica away, and the autoscaler its pod."""
    cluster.held, cluster.others, cluster.pods = None, [], ()
    cluster.carry_out(cluster.plan())


def asleep(spec: dict[str, Any] = SLEEPS) -> Cluster:
    cluster = serving(version("v-a"), spec=spec)
    falls_asleep(cluster)
    return cluster


def test_it_is_kept_awake_until_its_version_has_answered_and_may_then_sleep() -> None:
    cluster = Cluster(SLEEPS)
    cluster.carry_out(cluster.plan())
    assert least(cluster) == 1
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())
    assert least(cluster) == 1, "it has not answered yet"
    cluster.settle(3)
    assert least(cluster) == 0 and cluster.plan().empty
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")


def test_putting_it_to_sleep_is_no_change_that_keeps_it_awake() -> None:
    cluster = serving(version("v-a"), spec=SLEEPS)
    assert cluster.server and least(cluster) == 0
    cluster.server = replace(cluster.server, observed_generation=cluster.server.generation - 1)
    assert cluster.plan().empty, "KubeRay has not read it yet"


def test_asleep_it_is_ready_and_available_since_requests_wait_for_a_replica() -> None:
    cluster = asleep()
    said = "Scaled to zero; the first request starts a replica."
    assert cluster.condition(ConditionType.READY) == ("True", Reason.IDLE, said)
    waits = "No replica runs: a request waits until one has started, and version v-a answers it."
    assert cluster.condition(ConditionType.AVAILABLE) == ("True", Reason.IDLE, waits)
    assert cluster.condition(ConditionType.STALLED) is None and cluster.condition(ConditionType.RECONCILING) is None
    assert (cluster.status.phase, cluster.status.ready_replicas) == ("Idle", 0)
    assert cluster.status.current_version == "v-a" and cluster.plan().empty


def test_a_pod_whose_replica_is_gone_and_that_goes_too_is_no_outage() -> None:
    cluster = serving(version("v-a"), spec=SLEEPS)
    cluster.replicas = {"pod-1": False}
    cluster.pods = (PodView("pod-1", "ray-1", "Running", cluster.now, component="worker"),)
    cluster.carry_out(cluster.plan())
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[1] == Reason.IDLE and "the first request starts a replica" in ready[2]


def starts(cluster: Cluster, took_s: float = 34.0) -> None:
    """A replica has started in a new pod."""
    pod_name = f"other-{len(cluster.others)}"
    created = cluster.now
    cluster.now += timedelta(seconds=took_s)
    start = ReplicaStart(
        began=created.timestamp() + took_s - 6, ready=cluster.now.timestamp(), download_s=1.25, load_s=4.0
    )
    models = [ModelState(revision=cluster.layout.stable.name, state="Ready")]
    cluster.others = [*cluster.others, ServerReport(replica=pod_name, ready=True, models=models, start=start)]
    started = created + timedelta(seconds=8)
    pod = PodView(pod_name, "ray-1", "Running", created, component="worker", started_at=started)
    cluster.pods = (*cluster.pods, pod)
    cluster.held = cluster.layout.stable.name
    cluster.replicas = {}


def test_the_time_that_a_start_takes_is_told_by_part_and_said_to_who_waits_next() -> None:
    cluster = asleep()
    cluster.pods = (PodView("other-0", "ray-1", "Pending", cluster.now, component="worker"),)
    cluster.carry_out(cluster.plan())
    said = "Scaled to zero; a replica is starting, and requests wait for it."
    assert cluster.condition(ConditionType.READY) == ("True", Reason.IDLE, said)
    cluster.pods = ()
    starts(cluster)
    cluster.carry_out(cluster.plan())
    found = cluster.status.cold_start
    assert found and (found.seconds, found.pod_seconds, found.ray_seconds) == ("34.0", "8.0", "20.0")
    assert (found.download_seconds, found.load_seconds) == ("1.2", "4.0")
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")
    assert cluster.plan().empty
    falls_asleep(cluster)
    said = "Scaled to zero; the first request starts a replica, which took 34 s last time."
    assert cluster.condition(ConditionType.READY) == ("True", Reason.IDLE, said)
    assert cluster.status.cold_start == found


def test_a_replica_that_is_started_again_in_a_pod_that_was_there_has_not_started_cold() -> None:
    cluster = asleep()
    starts(cluster)
    cluster.carry_out(cluster.plan())
    before = cluster.status.cold_start
    (report,) = cluster.others
    assert report.start
    again = report.start.model_copy(update={"began": report.start.began + 3600, "ready": report.start.ready + 3600})
    cluster.others = [report.model_copy(update={"start": again})]
    cluster.now += timedelta(hours=1)
    cluster.carry_out(cluster.plan())
    assert cluster.status.cold_start == before


def test_nothing_is_told_of_the_start_of_a_server_that_never_sleeps() -> None:
    cluster = serving(version("v-a"))
    starts(cluster)
    cluster.carry_out(cluster.plan())
    assert cluster.status.cold_start is None


def test_a_replica_that_finds_no_room_is_an_outage_with_its_cause() -> None:
    cluster = asleep()
    why = "0/1 nodes are available: 1 Insufficient memory."
    cluster.pods = (PodView("w", "ray-1", "Pending", cluster.now, component="worker", unschedulable=why),)
    cluster.carry_out(cluster.plan())
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[:2] == ("False", Reason.UNSCHEDULABLE) and "not enough memory is free" in ready[2]
    available = cluster.condition(ConditionType.AVAILABLE)
    assert available and available[:2] == ("False", Reason.UNAVAILABLE)


def test_a_replica_that_does_not_start_is_an_outage() -> None:
    cluster = asleep()
    cluster.applications[names.SERVER] = ApplicationView("DEPLOY_FAILED", "LoadError: InvalidModel: It has no labels.")
    cluster.kuberay_observes()
    assert cluster.server
    cluster.server = replace(cluster.server, serving=True)
    cluster.carry_out(cluster.plan())
    available = cluster.condition(ConditionType.AVAILABLE)
    assert available and available[:2] == ("False", Reason.UNAVAILABLE)


def test_a_new_version_wakes_it_proves_itself_and_lets_it_sleep_again() -> None:
    cluster = asleep()
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    (canary,) = (name for name in cluster.applications if name != names.SERVER)
    assert least(cluster) == 1 and least(cluster, canary) == 1
    available = cluster.condition(ConditionType.AVAILABLE)
    assert available and available[0] == "True"
    begun = cluster.now
    cluster.settle(8)
    assert cluster.weights() == {"v-b": 100} and cluster.layout.canary is None
    assert cluster.now - begun < timedelta(seconds=cluster.spec.rollout.progress_deadline_seconds)
    assert least(cluster) == 0 and cluster.plan().empty
    falls_asleep(cluster)
    assert cluster.status.current_version == "v-b" and cluster.status.phase == "Idle"


def test_in_place_a_version_that_has_not_answered_yet_is_not_put_to_sleep() -> None:
    cluster = asleep({**SLEEPS, "rollout": {"strategy": "InPlace"}})
    cluster.job = job(version("v-b"), version("v-a"))
    for _ in range(3):
        cluster.carry_out(cluster.plan())
        cluster.kuberay_observes()
    assert least(cluster) == 1 and cluster.status.history[0].version == "v-a"
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[:2] == ("False", Reason.ROLLING_OUT)
    assert ready[2] == "A replica is starting for version v-b; requests wait for it."
    cluster.settle(3)
    assert least(cluster) == 0 and cluster.status.history[0].version == "v-b"


def test_a_second_ray_cluster_has_a_replica_before_it_takes_over() -> None:
    cluster = serving(version("v-a"), spec=SLEEPS)
    changed = {**SLEEPS, "runtime": {"resources": {"limits": {"memory": "5Gi"}}}}
    cluster.spec = cluster.spec.model_validate(changed)
    cluster.carry_out(cluster.plan())
    assert least(cluster) == 1 and cluster.server
    cluster.carry_out(cluster.plan())
    assert least(cluster) == 1, "KubeRay has not begun yet"
    cluster.server = replace(cluster.server, upgrading=True, observed_generation=cluster.server.generation)
    cluster.carry_out(cluster.plan())
    assert least(cluster) == 1
    cluster.server = replace(cluster.server, upgrading=False)
    cluster.settle(3)
    assert least(cluster) == 0


def test_requests_that_wait_are_bounded_and_the_rest_is_told_when_to_come_back() -> None:
    cluster = serving(version("v-a"), spec={**SLEEPS, "runtime": {"maxQueuedRequests": 7}})
    found = options(cluster)
    assert found["max_queued_requests"] == 7
    assert found["backpressure_config"] == {"status_code": 503, "retry_after_s": 5}
    assert found["autoscaling_config"]["metrics_interval_s"] == 1, "Ray Serve hears of the first request at once"
    for spec in (FOLLOWING, {**FOLLOWING, "autoscaling": {"minReplicas": 1}}):
        others = options(serving(version("v-a"), spec=spec))
        assert not {"max_queued_requests", "backpressure_config"} & set(others)
        assert "metrics_interval_s" not in others.get("autoscaling_config", {})


def test_its_pods_may_all_go_its_cluster_may_shrink_to_the_head_and_begins_with_one() -> None:
    cluster = serving(version("v-a"), spec=SLEEPS)
    assert disruption_budget(cluster.meta, cluster.spec)["spec"]["minAvailable"] == 0
    config = cluster.manifest["spec"]["rayClusterConfig"]
    (workers,) = config["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (1, 0, 3)
    assert config["enableInTreeAutoscaling"] and options(cluster)["user_config"]["replicas"] == 1
    one = serving(version("v-a"), spec={**FOLLOWING, "autoscaling": {"minReplicas": 0, "maxReplicas": 1}})
    assert one.manifest["spec"]["rayClusterConfig"]["enableInTreeAutoscaling"]


def test_one_that_was_left_behind_asleep_is_taken_over_as_it_is() -> None:
    cluster = asleep()
    assert cluster.server
    cluster.server = replace(cluster.server, owner_uid="", orphan=True)
    cluster.meta = replace(cluster.meta, uid="uid-2")
    (apply,) = cluster.plan().applies
    assert apply.manifest["spec"] == cluster.manifest["spec"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["work", "wait", "sleep"]), st.integers(0, 30)),
        max_size=12,
    )
)
def test_whatever_happens_it_comes_to_rest_and_never_sleeps_on_a_version_that_has_not_answered(
    history: list[tuple[str, str, int]],
) -> None:
    cluster = serving(version("v-a"), spec=SLEEPS)
    for letter, what, seconds in history:
        cluster.job = job(version(f"v-{letter}"), *(version(f"v-{other}") for other in "abc" if other != letter))
        cluster.carry_out(cluster.plan())
        if what == "work":
            cluster.ray_works()
        if what == "sleep" and least(cluster) == 0:
            cluster.held = None
        cluster.now += timedelta(seconds=seconds)
        if least(cluster) == 0:
            assert cluster.status.history[0].name == cluster.layout.stable.name
    cluster.settle()
    assert least(cluster) == 0 and cluster.plan().empty
    assert DEFAULTS.drain_s > 0
