"""What a ModelDeployment serves and says, and how a new version takes over without steps."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_api.conditions import find_condition
from luthier_api.documents import ModelState, ServerReport
from luthier_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests.rayservice import read_layout
from luthier_operator.model import names
from luthier_operator.model.actions import Scale
from luthier_operator.model.parse import rayservice_view
from luthier_operator.model.views import ApplicationView, FineTuneJobView, PodView, Refusal
from luthier_operator.plan.modeldeployment.policies import plan_unreadable
from support.operator.serving import DEFAULTS, FOLLOWING, Cluster, job, serving, version

pytestmark = pytest.mark.unit


def test_the_first_version_is_served_and_then_nothing_is_written() -> None:
    cluster = serving(version("v-a"))
    assert cluster.weights() == {"v-a": 100}
    assert cluster.status.current_version == "v-a"
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")
    assert cluster.plan().empty


def test_a_new_version_starts_beside_the_old_one_which_goes_only_after_it_has_no_requests() -> None:
    cluster = serving(version("v-a"))
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 100, "v-b": 0}, "it does not run yet"
    cluster.ray_works()
    plan = cluster.plan()
    cluster.carry_out(plan)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}, "it runs only since now"
    assert plan.requeue_after_s == DEFAULTS.settle_s
    cluster.now += timedelta(seconds=DEFAULTS.settle_s)
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 0, "v-b": 100}
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 0, "v-b": 100}, "the replicas may not have heard of it yet"
    cluster.now += timedelta(seconds=DEFAULTS.drain_s + 1)
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-b": 100} and cluster.layout.canary, "the replica does not hold it yet"
    said = "Version v-b answers all requests; the server replicas load it."
    assert cluster.condition(ConditionType.READY) == ("False", Reason.ROLLING_OUT, said)
    cluster.ray_works()
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-b": 100} and cluster.layout.canary is None


def test_two_versions_differ_in_the_serve_config_only_so_that_no_second_ray_cluster_is_made() -> None:
    one, two = serving(version("v-a")), serving(version("v-b"))
    assert one.manifest["spec"]["rayClusterConfig"] == two.manifest["spec"]["rayClusterConfig"]
    assert one.manifest["spec"]["serveConfigV2"] != two.manifest["spec"]["serveConfigV2"]


def test_a_version_that_does_not_start_changes_nothing_for_those_who_ask() -> None:
    cluster = serving(version("v-a"))
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    cluster.broken = {"v-b"}
    cluster.settle()
    assert cluster.weights() == {"v-a": 100}
    assert cluster.condition(ConditionType.AVAILABLE) == ("True", Reason.SERVING, "Version v-a answers requests.")
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled is not None and stalled[1] == Reason.REVISION_FAILED
    assert stalled[2] == "Version v-b does not start: one byte differs. Version v-a still answers requests."
    assert cluster.plan().empty, "it is not tried again by itself"
    cluster.meta = replace(cluster.meta, retry="now")
    assert not cluster.plan().empty, "the annotation tries it again"


def test_a_version_that_never_starts_is_given_up_at_its_deadline() -> None:
    cluster = serving(version("v-a"))
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())
    cluster.now += timedelta(seconds=600)
    cluster.carry_out(cluster.plan())
    assert cluster.condition(ConditionType.STALLED) is None
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    cluster.now += timedelta(seconds=1)
    cluster.carry_out(cluster.plan())
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled is not None and stalled[1] == Reason.PROGRESS_DEADLINE_EXCEEDED
    assert cluster.weights() == {"v-a": 100}


def test_a_first_version_that_never_starts_is_stalled_at_its_deadline_and_stays_for_when_it_does() -> None:
    cluster = Cluster()
    cluster.carry_out(cluster.plan())
    cluster.kuberay_observes()
    plan = cluster.plan()
    cluster.carry_out(plan)
    assert plan.requeue_after_s == 601, "time alone makes it too late"
    assert cluster.condition(ConditionType.STALLED) is None
    cluster.now += timedelta(seconds=601)
    cluster.carry_out(cluster.plan())
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled is not None and stalled[1] == Reason.PROGRESS_DEADLINE_EXCEEDED
    assert "did not start within 600 s" in stalled[2]
    assert cluster.weights() == {"v-a": 100}
    cluster.settle(2)
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")


def test_a_status_older_than_the_configuration_moves_no_request() -> None:
    """A version that comes back is not taken for the one of the same name that ran before."""
    cluster = serving(version("v-b"))
    cluster.job = job(version("v-a"), version("v-b"))
    cluster.settle()
    assert cluster.weights() == {"v-a": 100}
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    assert cluster.server
    again = next(name for name in cluster.applications if name != names.SERVER)
    stale = {**cluster.server.applications, again: ApplicationView("RUNNING", "")}
    cluster.server = replace(cluster.server, applications=stale)
    for _ in range(3):
        cluster.now += timedelta(seconds=DEFAULTS.settle_s + 1)
        cluster.carry_out(cluster.plan())
        assert cluster.weights() == {"v-a": 100, "v-b": 0}, "KubeRay has not seen this configuration"
    cluster.settle()
    assert cluster.weights() == {"v-b": 100}


def test_a_revert_in_the_middle_of_a_rollout_keeps_the_old_version() -> None:
    cluster = serving(version("v-a"))
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    cluster.job = job(version("v-a"), version("v-b"))
    cluster.settle()
    assert cluster.weights() == {"v-a": 100}


@pytest.mark.parametrize(
    ("found", "reason", "says"),
    [
        (None, Reason.WAITING_FOR_MODEL, "There is no FineTuneJob sentiment in this namespace yet."),
        (job(), Reason.WAITING_FOR_MODEL, "to publish a version"),
        (job(version("v-a", promotable=False)), Reason.WAITING_FOR_MODEL, "no version of it passed its gates"),
    ],
)
def test_it_waits_and_says_for_what(found: FineTuneJobView | None, reason: Reason, says: str) -> None:
    cluster = Cluster()
    cluster.job = found
    cluster.settle(2)
    assert cluster.server is None
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and ready[:2] == ("False", reason) and says in ready[2]


def test_a_pinned_version_that_does_not_exist_is_named_with_those_that_do() -> None:
    cluster = Cluster({"model": {"fineTuneJobRef": {"name": "sentiment", "version": "v-z"}}})
    cluster.settle(2)
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled is not None and "no version v-z; it has: v-a" in stalled[2]


def test_a_deleted_finetunejob_leaves_its_version_in_service() -> None:
    cluster = serving(version("v-a"))
    cluster.job = None
    cluster.settle(2)
    assert cluster.weights() == {"v-a": 100}
    assert cluster.status.conditions[0].status == "True"


def test_a_version_that_misses_its_gate_is_not_taken_up() -> None:
    cluster = serving(version("v-a"))
    cluster.job = job(version("v-b", promotable=False), version("v-a"))
    cluster.settle(3)
    assert cluster.weights() == {"v-a": 100}


def test_suspending_removes_the_server_and_going_on_brings_it_back() -> None:
    cluster = serving(version("v-a"))
    asleep = {**FOLLOWING, "suspend": True}
    cluster.spec = ModelDeploymentSpec.model_validate(asleep)
    cluster.settle(2)
    assert cluster.server is None and cluster.status.phase == "Suspended" and cluster.plan().empty
    cluster.spec = ModelDeploymentSpec.model_validate(FOLLOWING)
    cluster.settle()
    assert cluster.weights() == {"v-a": 100}


def test_without_kuberay_it_says_so_and_goes_on_when_it_comes() -> None:
    cluster = Cluster()
    cluster.kuberay = False
    cluster.settle(2)
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and ready[1] == Reason.KUBERAY_NOT_INSTALLED and "KubeRay is not installed" in ready[2]
    assert cluster.plan().requeue_after_s
    cluster.kuberay = True
    cluster.settle()
    assert cluster.weights() == {"v-a": 100}


@pytest.mark.parametrize("suspend", [False, True])
def test_somebody_elses_rayservice_is_never_touched(suspend: bool) -> None:
    cluster = serving(version("v-a"))
    assert cluster.server
    cluster.server = replace(cluster.server, owner_uid="other")
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.spec = ModelDeploymentSpec.model_validate({**FOLLOWING, "suspend": suspend})
    plan = cluster.plan()
    assert not plan.applies and not plan.deletes
    cluster.carry_out(plan)
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled is not None and stalled[1] == Reason.CONFIG_ERROR and "is not Luthier's" in stalled[2]


def test_a_server_that_is_being_deleted_is_neither_applied_nor_deleted_again() -> None:
    cluster = serving(version("v-a"))
    assert cluster.server
    cluster.server = replace(cluster.server, deleting=True)
    cluster.job = job(version("v-b"), version("v-a"))
    assert not cluster.plan().applies
    cluster.spec = ModelDeploymentSpec.model_validate({**FOLLOWING, "suspend": True})
    assert not cluster.plan().deletes


def test_available_says_whether_requests_are_answered() -> None:
    cluster = serving(version("v-a"))
    assert cluster.server
    held, cluster.held = cluster.held, None
    cluster.server = replace(cluster.server, serving=False)
    cluster.carry_out(cluster.plan())
    assert cluster.condition(ConditionType.AVAILABLE) == ("False", Reason.UNAVAILABLE, "No request is answered.")
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and ready[0] == "False" and cluster.status.ready_replicas == 0
    cluster.job = None
    cluster.carry_out(cluster.plan())
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and ready[:2] == ("False", Reason.WAITING_FOR_MODEL), "no target, and nothing answers"
    cluster.held = held
    cluster.job = job(version("v-a"))
    cluster.carry_out(cluster.plan())
    available = cluster.condition(ConditionType.AVAILABLE)
    assert cluster.status.ready_replicas == 1 and available is not None
    assert available[0] == "True", "the replica's own word counts more than KubeRay's, which may be old"


def test_while_a_second_ray_cluster_comes_up_requests_are_answered_and_it_is_not_ready() -> None:
    cluster = serving(version("v-a"))
    assert cluster.server
    cluster.server = replace(cluster.server, upgrading=True, applications={})
    cluster.held = None  # KubeRay's word alone, which is about the new cluster
    cluster.carry_out(cluster.plan())
    available, ready = cluster.condition(ConditionType.AVAILABLE), cluster.condition(ConditionType.READY)
    assert available is not None and available[0] == "True"
    assert ready is not None and ready[:2] == ("False", Reason.ROLLING_OUT), "the new cluster does not run it yet"


def test_a_lost_replica_is_a_moment_and_no_failure() -> None:
    cluster = serving(version("v-a"))
    cluster.applications[names.SERVER] = ApplicationView("UNHEALTHY", "A replica died.")
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())
    assert cluster.status.revisions[0].state == "Unhealthy" and cluster.status.last_failure is None
    assert cluster.weights() == {"v-a": 100}, "Ray Serve restarts its replicas"
    said = "Version v-a has lost a replica, which Ray Serve starts again. A replica died."
    assert cluster.condition(ConditionType.READY) == ("False", Reason.ROLLING_OUT, said)
    assert cluster.condition(ConditionType.STALLED) is None
    cluster.settle(2)
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")
    assert cluster.condition(ConditionType.STALLED) is None


def test_a_version_that_stays_without_its_replicas_is_a_failure_after_the_deadline() -> None:
    cluster = serving(version("v-a"))
    cluster.applications[names.SERVER] = ApplicationView("UNHEALTHY", "A replica died.")
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())
    cluster.now += timedelta(seconds=601)
    cluster.carry_out(cluster.plan())
    said = "Version v-a has been unhealthy for 600 s. A replica died."
    assert cluster.condition(ConditionType.STALLED) == ("True", Reason.PROGRESS_DEADLINE_EXCEEDED, said)


def at_size(cluster: Cluster, fewest: int, most: int) -> None:
    """Let KubeRay report the size of its cluster."""
    assert cluster.server
    cluster.server = replace(
        cluster.server, cluster="sentiment-abc", workers=fewest, fewest_workers=fewest, most_workers=most
    )


def test_more_replicas_are_pods_of_the_same_ray_cluster_which_only_the_cluster_itself_can_be_told() -> None:
    cluster = serving(version("v-a"))
    before = cluster.server
    at_size(cluster, 1, 1)
    assert cluster.plan().empty
    cluster.spec = ModelDeploymentSpec.model_validate({**FOLLOWING, "replicas": 3})
    plan = cluster.plan()
    assert plan.scales == (Scale("default", "sentiment-abc", 3, 3, 3),)
    cluster.carry_out(plan)
    assert before and cluster.server and cluster.server.cluster_hash == before.cluster_hash
    at_size(cluster, 3, 3)
    assert not cluster.plan().scales


def test_fewer_replicas_leave_first_and_then_the_pods_that_hold_none() -> None:
    cluster = serving(version("v-a"), spec={**FOLLOWING, "replicas": 2})
    at_size(cluster, 2, 2)
    cluster.spec = ModelDeploymentSpec.model_validate({**FOLLOWING, "replicas": 1})
    cluster.replicas = {"pod-1": True, "pod-2": True}
    plan = cluster.plan()
    assert plan.applies and not plan.scales, "both pods still hold one"
    cluster.carry_out(plan)
    cluster.replicas = {"pod-1": False, "pod-2": True}
    assert cluster.plan().scales == (Scale("default", "sentiment-abc", 1, 1, 1, ("pod-1",)),)


def test_bounds_of_the_autoscaler_are_changed_and_the_number_is_left_to_it() -> None:
    cluster = serving(version("v-a"), spec={**FOLLOWING, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}})
    at_size(cluster, 1, 2)
    more = {**FOLLOWING, "autoscaling": {"minReplicas": 1, "maxReplicas": 5}}
    cluster.spec = ModelDeploymentSpec.model_validate(more)
    assert cluster.plan().scales == (Scale("default", "sentiment-abc", None, 1, 5),)


def test_a_replica_that_is_only_starting_says_nothing_about_a_version_in_service() -> None:
    for strategy in ("Canary", "InPlace"):
        cluster = serving(version("v-a"), spec={**FOLLOWING, "rollout": {"strategy": strategy}})
        cluster.job = job(version("v-b"), version("v-a"))
        cluster.settle(8)
        cluster.now += timedelta(days=7)
        name = cluster.layout.stable.name
        for model in (
            ModelState(revision=name, state="Loading"),
            ModelState(revision=name, state="Failed", message="StorageDenied: the keys have expired."),
        ):
            cluster.others = [ServerReport(replica="replica-2", ready=False, models=[model])]
            cluster.carry_out(cluster.plan())
            assert cluster.weights() == {"v-b": 100}
            assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-b answers requests.")
            assert cluster.status.ready_replicas == 1 and not cluster.status.rejected


def test_a_version_is_the_servers_own_only_once_every_replica_that_answers_holds_it() -> None:
    cluster = serving(version("v-a"))
    cluster.job = job(version("v-b"), version("v-a"))
    late = ServerReport(replica="replica-2", ready=True, models=[ModelState(revision="rev-other", state="Ready")])
    cluster.others = [late]
    cluster.settle(8)
    assert cluster.layout.canary is not None and cluster.layout.stable.version == "v-b"
    assert cluster.status.rollout and cluster.status.rollout.stage == "Loading"
    cluster.others = []
    cluster.settle(1)
    assert cluster.layout.canary is None


def test_a_cluster_that_may_grow_may_ask_for_pods_and_a_fixed_one_may_not() -> None:
    grows = Cluster({**FOLLOWING, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}})
    fixed = Cluster({**FOLLOWING, "replicas": 2})
    for cluster, may in ((grows, True), (fixed, False)):
        cluster.settle(1)
        config = cluster.manifest["spec"]["rayClusterConfig"]
        assert config["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is may
        assert ("enableInTreeAutoscaling" in config) is may
        (workers,) = config["workerGroupSpecs"]
        assert workers["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("gpus", "most"), [(0, 2), (1, 4)])
def test_a_rollout_on_gpus_has_room_for_both_revisions(gpus: int, most: int) -> None:
    cluster = Cluster({**FOLLOWING, "replicas": 2, "runtime": {"gpusPerReplica": gpus}})
    cluster.settle(1)
    (workers,) = cluster.manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (2, most)


def test_secrets_reach_the_workers_and_not_the_head() -> None:
    config = serving(version("v-a")).manifest["spec"]["rayClusterConfig"]
    head = json.dumps(config["headGroupSpec"])
    worker = json.dumps(config["workerGroupSpecs"])
    assert "credentials" not in head and '"keys"' in worker
    assert "/etc/luthier/credentials/output" in worker and "secretKeyRef" not in worker
    assert config["authOptions"] == {"mode": "token"}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["work", "wait", "stop early"]), st.integers(0, 30)),
        max_size=12,
    )
)
def test_whatever_happens_only_a_running_revision_is_given_requests_and_it_ends_well(
    history: list[tuple[str, str, int]],
) -> None:
    cluster = serving(version("v-a"))
    for letter, what, seconds in history:
        cluster.job = job(version(f"v-{letter}"), *(version(f"v-{other}") for other in "abc" if other != letter))
        plan = cluster.plan()
        for apply in (each for each in plan.applies if each.manifest["kind"] == "RayService"):
            layout = read_layout(apply.manifest["spec"]["serveConfigV2"])
            assert layout and sum(layout.weights.values()) == 100
            for name in (name for name, weight in layout.weights.items() if weight):
                runs = cluster.applications.get(name, ApplicationView("", "")).status == "RUNNING"
                assert runs or cluster.held == name, "requests went to what does not run"
        cluster.carry_out(plan, actions=0 if what == "stop early" else None)
        if what == "work":
            cluster.ray_works()
        cluster.now += timedelta(seconds=seconds)
    wanted = history[-1][0] if history else "a"
    cluster.settle()
    assert cluster.weights() == {f"v-{wanted}": 100}
    assert cluster.plan().empty


def test_what_the_cluster_refuses_is_said_tried_again_and_forgets_nothing() -> None:
    cluster = Cluster()
    cluster.settle()
    before = cluster.status
    cluster.refused = Refusal("spec.rayClusterConfig: Invalid value")
    plan = cluster.plan()
    cluster.carry_out(plan)
    ready = find_condition(cluster.status.conditions, ConditionType.READY)
    assert ready and (ready.status, ready.reason) == ("False", "InvalidSpec")
    assert ready.message == "The cluster refuses the server: spec.rayClusterConfig: Invalid value."
    assert plan.requeue_after_s == DEFAULTS.refused_retry_s and not plan.applies
    assert cluster.status.revisions == before.revisions
    available = find_condition(cluster.status.conditions, ConditionType.AVAILABLE)
    assert available and available.status == "True", "requests are answered as before"


def test_a_spec_that_cannot_be_read_is_said_and_forgets_nothing() -> None:
    cluster = Cluster()
    cluster.settle()
    before = cluster.status
    plan = plan_unreadable(cluster.meta, before, "spec.model: Field required.", cluster.now)
    cluster.carry_out(plan)
    ready = find_condition(cluster.status.conditions, ConditionType.READY)
    assert ready and (ready.reason, ready.message) == ("InvalidSpec", "spec.model: Field required.")
    assert cluster.status.revisions == before.revisions and not plan.applies and not plan.deletes


def test_a_rayservice_that_was_left_behind_is_taken_over_as_it_is() -> None:
    cluster = serving(version("v-a"))
    assert cluster.server
    cluster.server = replace(cluster.server, owner_uid="", orphan=True)
    cluster.meta, cluster.status = replace(cluster.meta, uid="uid-2"), ModelDeploymentStatus()
    plan = cluster.plan()
    (apply,) = plan.applies
    assert apply.manifest["metadata"]["ownerReferences"][0]["uid"] == "uid-2" and not plan.deletes
    assert apply.manifest["spec"] == cluster.manifest["spec"] and [e.reason for e in plan.events] == [Reason.ADOPTED]


def test_a_rayservice_of_another_spec_that_was_left_behind_is_named_with_what_to_do() -> None:
    cluster = serving(version("v-a"))
    assert cluster.server
    cluster.server = replace(cluster.server, owner_uid="", orphan=True)
    cluster.meta = replace(cluster.meta, uid="uid-2")
    cluster.job = job(version("v-b"), version("v-a"))
    plan = cluster.plan()
    assert not plan.applies and not plan.deletes
    cluster.carry_out(plan)
    stalled = cluster.condition(ConditionType.STALLED)
    assert stalled is not None and "kubectl delete rayservice sentiment" in stalled[2]


LIMITS = 'pods "sentiment-head" is forbidden: minimum cpu usage per Container is 2, but request is 250m'


@pytest.mark.parametrize("by", ["event", "condition"])
def test_a_refused_pod_is_said_with_the_field_that_helps_until_the_server_answers(by: str) -> None:
    cluster = Cluster()
    cluster.carry_out(cluster.plan())
    assert cluster.server
    started = replace(cluster.server, created_at=cluster.now, cluster="sentiment-abc", workers=0)
    cluster.server = replace(started, refused=LIMITS) if by == "condition" else started
    cluster.pod_event = LIMITS if by == "event" else ""
    assert cluster.plan().requeue_after_s == 2.0
    cluster.carry_out(cluster.plan())
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[1] == Reason.POD_REFUSED and "runtime.resources" in ready[2]
    cluster.pod_event = ""
    cluster.server = replace(cluster.server, refused="")
    cluster.settle()
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[1] == Reason.SERVING and cluster.plan().requeue_after_s is None


def test_a_replica_whose_secret_is_missing_is_asked_about_and_says_so_until_it_is_there() -> None:
    cluster = Cluster()
    cluster.carry_out(cluster.plan())
    assert cluster.server
    cluster.server = replace(cluster.server, created_at=cluster.now, cluster="sentiment-abc")
    head = PodView("head", "ray-1", "Running", cluster.now, node="n1")
    worker = PodView("w", "ray-1", "Pending", cluster.now, node="n1", waiting_reason="PodInitializing")
    cluster.pods = (head, worker)
    assert cluster.plan().requeue_after_s == 2.0
    cluster.pod_event = 'MountVolume.SetUp failed for volume "credentials-output" : secret "keys" not found'
    cluster.carry_out(cluster.plan())
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[1] == Reason.MISSING_SECRET and "Create that Secret" in ready[2]
    cluster.pod_event, cluster.pods = "", (head, replace(worker, phase="Running", waiting_reason=""))
    cluster.settle()
    ready = cluster.condition(ConditionType.READY)
    assert ready and ready[1] == Reason.SERVING and cluster.plan().requeue_after_s is None


def test_the_condition_of_a_ray_cluster_that_says_why_it_has_no_pods_is_read() -> None:
    failing = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": LIMITS}
    pending = {"rayClusterName": "sentiment-abc", "rayClusterStatus": {"conditions": [failing]}}
    raw = {"metadata": {"name": "s", "uid": "u"}, "spec": {}, "status": {"pendingServiceStatus": pending}}
    view = rayservice_view(raw)
    assert (view.refused, view.cluster) == (LIMITS, "sentiment-abc")


def test_a_server_that_storage_refuses_says_why_and_is_well_by_itself_once_the_secret_is_mended() -> None:
    cluster = Cluster()
    cluster.carry_out(cluster.plan())
    cluster.kuberay_observes()
    why = "StorageDenied: s3://models refuses the keys of the Secret."
    waiting = ModelState(revision=cluster.layout.stable.name, state="Failed", message=why)
    cluster.others = [ServerReport(replica="replica-1", ready=False, models=[waiting])]
    for _ in range(3):
        cluster.carry_out(cluster.plan())
        cluster.now += timedelta(seconds=20)
    said = "The server for version v-a is starting. s3://models refuses the keys of the Secret."
    assert cluster.condition(ConditionType.READY) == ("False", Reason.DEPLOYING, said)
    assert cluster.condition(ConditionType.STALLED) is None and cluster.weights() == {"v-a": 100}
    cluster.others = []
    cluster.ray_works()
    cluster.carry_out(cluster.plan())
    assert cluster.condition(ConditionType.READY) == ("True", Reason.SERVING, "Version v-a answers requests.")
    available = cluster.condition(ConditionType.AVAILABLE)
    assert available and available[0] == "True"
