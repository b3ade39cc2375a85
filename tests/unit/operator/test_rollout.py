"""A rollout by steps: shares, pauses, judgement by the figures, the user's wishes, and every way back."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier_api.documents import RevisionCounts, ServerReport
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.model import names
from luthier_operator.model.views import ApplicationView
from support.operator.serving import DEFAULTS, FOLLOWING, Cluster, job, serving, version

pytestmark = pytest.mark.unit

STEPS = [{"trafficPercent": 5, "pauseSeconds": 300}, {"trafficPercent": 25, "pauseSeconds": 300}]
MANUAL = [{"trafficPercent": 50, "pause": "Manual"}]
GOOD = RevisionCounts(requests=1000, errors=2, latency={30: 1000})


def rollout(**fields: Any) -> dict[str, Any]:
    return {**FOLLOWING, "rollout": fields}


def canary(cluster: Cluster) -> Cluster:
    """Bring a second version to the point at which it has its first share of the requests."""
    cluster.job = job(version("v-b"), version("v-a"))
    for _ in range(6):
        cluster.carry_out(cluster.plan())
        cluster.ray_works()
        if cluster.layout.step is not None or cluster.layout.canary_weight == 100:
            break
        cluster.now += timedelta(seconds=DEFAULTS.settle_s)
    return cluster


def step(cluster: Cluster, seconds: float = 0) -> None:
    """Let time pass, and reconcile once."""
    cluster.now += timedelta(seconds=seconds)
    cluster.carry_out(cluster.plan())
    cluster.ray_works()


def stalled(cluster: Cluster) -> tuple[str, str]:
    found = cluster.condition(ConditionType.STALLED)
    assert found is not None
    return found[1], found[2]


def test_a_canary_gets_its_share_step_by_step_and_then_all() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS)))
    assert cluster.weights() == {"v-a": 95, "v-b": 5}
    plan = cluster.plan()
    assert plan.requeue_after_s == 300 and not plan.applies
    assert cluster.condition(ConditionType.READY) == (
        "False", Reason.ROLLING_OUT, "Version v-b answers 5 % of the requests, step 1.",
    )  # fmt: skip
    assert cluster.status.rollout and cluster.status.rollout.stage == "Step" and cluster.status.rollout.step == 1
    step(cluster, 299)
    assert cluster.weights() == {"v-a": 95, "v-b": 5}
    step(cluster, 1)
    assert cluster.weights() == {"v-a": 75, "v-b": 25}
    step(cluster, 299)
    assert cluster.weights() == {"v-a": 75, "v-b": 25}, "each step has its own time"
    assert cluster.status.current_version == "v-a"
    step(cluster, 1)
    assert cluster.weights() == {"v-a": 0, "v-b": 100}
    cluster.carry_out(cluster.plan())
    assert cluster.status.current_version == "v-b"
    cluster.settle(4)
    assert cluster.weights() == {"v-b": 100} and cluster.status.rollout is None
    assert [each.version for each in cluster.status.history] == ["v-b", "v-a"]


def test_a_step_has_its_own_time_also_if_the_operator_ends_before_it_has_written_the_status() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS)))
    cluster.now += timedelta(seconds=300)
    cluster.carry_out(cluster.plan(), actions=2)
    assert cluster.weights() == {"v-a": 75, "v-b": 25}
    assert cluster.status.rollout and cluster.status.rollout.step == 1, "the status was not written"
    for seconds in (1, 299):
        step(cluster, seconds)
        assert cluster.weights() == {"v-a": 75, "v-b": 25}
    step(cluster, 1)
    assert cluster.weights() == {"v-a": 0, "v-b": 100}


def test_a_version_that_was_in_service_lately_returns_without_steps() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, rollbackWindow=1)))
    cluster.settle(40)
    assert cluster.weights() == {"v-b": 100}
    cluster.job = job(version("v-a"), version("v-b"))
    for _ in range(3):
        step(cluster, DEFAULTS.settle_s)
    assert cluster.weights() == {"v-b": 0, "v-a": 100}


def test_with_no_rollback_window_a_revert_takes_the_steps_too() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, rollbackWindow=0)))
    cluster.settle(40)
    cluster.job = job(version("v-a"), version("v-b"))
    for _ in range(3):
        step(cluster, DEFAULTS.settle_s)
    assert cluster.weights() == {"v-b": 95, "v-a": 5}


def test_a_manual_pause_waits_for_promote_of_this_generation() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=MANUAL)))
    step(cluster, 86400)
    assert cluster.weights() == {"v-a": 50, "v-b": 50}
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and "Waits for luthier.dev/promote" in ready[2]
    cluster.meta = replace(cluster.meta, wishes={"promote": "0"})
    step(cluster)
    assert cluster.weights() == {"v-a": 50, "v-b": 50}, "the annotation is of another generation"
    cluster.meta = replace(cluster.meta, wishes={"promote": "1"})
    step(cluster)
    assert cluster.weights() == {"v-a": 0, "v-b": 100} and cluster.status.handled == {"promote": "1"}


def test_an_annotation_counts_once_and_not_for_the_next_version() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=MANUAL)))
    cluster.meta = replace(cluster.meta, wishes={"promote": "1"})
    cluster.settle()
    assert cluster.weights() == {"v-b": 100}
    cluster.job = job(version("v-c"), version("v-b"), version("v-a"))
    cluster.settle()
    assert cluster.weights() == {"v-b": 50, "v-c": 50}, "it was carried out already"
    cluster.meta = replace(cluster.meta, wishes={"promote": "1#2"})
    cluster.settle()
    assert cluster.weights() == {"v-c": 100}


def test_a_wish_without_a_rollout_is_over_and_does_not_wait_for_one() -> None:
    cluster = serving(version("v-a"), spec=rollout(steps=MANUAL))
    cluster.meta = replace(cluster.meta, wishes={"skip": "1"})
    step(cluster)
    assert cluster.status.handled == {"skip": "1"}
    canary(cluster)
    step(cluster, 60)
    assert cluster.weights() == {"v-a": 50, "v-b": 50}


def test_abort_takes_the_requests_away_at_once_and_is_not_tried_again() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS)))
    cluster.meta = replace(cluster.meta, wishes={"abort": "1"})
    step(cluster)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    said = "Version v-b was rolled back: luthier.dev/abort asked for it. Version v-a still answers requests."
    assert stalled(cluster) == (Reason.ROLLED_BACK, said)
    available = cluster.condition(ConditionType.AVAILABLE)
    assert available is not None and available[0] == "True"
    cluster.settle()
    assert cluster.weights() == {"v-a": 100} and cluster.layout.canary is None and cluster.plan().empty
    assert stalled(cluster) == (Reason.ROLLED_BACK, said)
    assert [(each.version, each.reason) for each in cluster.status.rejected] == [("v-b", "RolledBack")]


def test_skip_leaves_the_steps_out() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS)))
    cluster.meta = replace(cluster.meta, wishes={"skip": "1"})
    step(cluster)
    assert cluster.weights() == {"v-a": 0, "v-b": 100}


def test_pause_holds_a_step_until_promote() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS)))
    cluster.meta = replace(cluster.meta, wishes={"pause": "1"})
    step(cluster)
    assert cluster.status.rollout and cluster.status.rollout.paused
    step(cluster, 9999)
    assert cluster.weights() == {"v-a": 95, "v-b": 5}
    cluster.meta = replace(cluster.meta, wishes={"pause": "1", "promote": "1"})
    step(cluster)
    assert cluster.weights() == {"v-a": 75, "v-b": 25}
    assert cluster.status.rollout and not cluster.status.rollout.paused


def test_a_manual_step_is_paused_from_its_beginning_until_promote() -> None:
    steps = [{"trafficPercent": 5, "pause": "Manual"}, {"trafficPercent": 25, "pauseSeconds": 60}]
    cluster = canary(serving(version("v-a"), spec=rollout(steps=steps)))
    assert cluster.status.rollout and cluster.status.rollout.paused
    step(cluster, 9999)
    assert cluster.status.rollout.paused and cluster.weights() == {"v-a": 95, "v-b": 5}
    cluster.meta = replace(cluster.meta, wishes={"promote": "1"})
    step(cluster)
    assert cluster.weights() == {"v-a": 75, "v-b": 25} and not cluster.status.rollout.paused


def test_a_new_version_in_the_middle_drops_the_canary_and_begins_from_the_stable_one() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS)))
    cluster.job = job(version("v-c"), version("v-b"), version("v-a"))
    step(cluster)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    step(cluster, DEFAULTS.drain_s - 1)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}, "it may still have requests"
    step(cluster, 1)
    assert cluster.weights() == {"v-a": 100}
    for _ in range(3):
        step(cluster, DEFAULTS.settle_s)
    assert cluster.weights() == {"v-a": 95, "v-c": 5}


def test_a_stable_version_that_does_not_answer_holds_no_healthy_one_back() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS)))
    cluster.applications[names.SERVER] = ApplicationView("UNHEALTHY", "A replica died.")
    cluster.kuberay_observes()
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 95, "v-b": 5}, "it may be well again in a moment"
    cluster.now += timedelta(seconds=DEFAULTS.settle_s)
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 0, "v-b": 100}


def test_a_canary_that_crashes_after_it_has_all_requests_gives_them_back() -> None:
    cluster = canary(serving(version("v-a")))
    assert cluster.weights() == {"v-a": 0, "v-b": 100}
    cluster.broken = {"v-b"}
    cluster.ray_works()
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    assert stalled(cluster)[0] == Reason.REVISION_FAILED


def test_abort_works_until_the_replicas_load_the_new_version() -> None:
    cluster = canary(serving(version("v-a")))
    assert cluster.weights() == {"v-a": 0, "v-b": 100}
    cluster.meta = replace(cluster.meta, wishes={"abort": "1"})
    step(cluster)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    assert stalled(cluster)[0] == Reason.ROLLED_BACK


def test_the_old_model_is_not_given_up_for_one_whose_replica_is_just_being_started_again() -> None:
    cluster = canary(serving(version("v-a")))
    step(cluster, DEFAULTS.drain_s - 1)
    [name] = [name for name in cluster.applications if name != names.SERVER]
    cluster.applications[name] = ApplicationView("UNHEALTHY", "A replica died.")
    cluster.kuberay_observes()
    cluster.now += timedelta(seconds=1)
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 0, "v-b": 100} and cluster.layout.stable.version == "v-a"
    step(cluster, 1)
    step(cluster, 1)
    assert cluster.layout.stable.version == "v-b"


def test_a_canary_stays_until_the_replicas_say_that_they_hold_the_version() -> None:
    cluster = canary(serving(version("v-a")))
    cluster.now += timedelta(seconds=DEFAULTS.drain_s)
    cluster.carry_out(cluster.plan())
    assert cluster.layout.stable.version == "v-b" and cluster.layout.canary
    cluster.held = None
    for _ in range(3):
        cluster.now += timedelta(seconds=30)
        cluster.carry_out(cluster.plan())
    assert cluster.layout.canary, "nobody was heard, so nobody is known to hold it"
    step(cluster)
    step(cluster)
    assert cluster.layout.canary is None


def test_a_pause_that_was_asked_for_while_it_starts_holds_the_first_step() -> None:
    cluster = serving(version("v-a"), spec=rollout(steps=[{"trafficPercent": 5}, {"trafficPercent": 25}]))
    cluster.meta = replace(cluster.meta, wishes={"pause": "1"})
    canary(cluster)
    for _ in range(3):
        step(cluster, 600)
    assert cluster.weights() == {"v-a": 95, "v-b": 5} and cluster.status.handled == {"pause": "1"}


ANALYSIS = {"intervalSeconds": 10, "minRequests": 50}


@pytest.mark.parametrize(
    ("limits", "new", "old", "says"),
    [
        (
            {"maxErrorRate": "0.01"},
            RevisionCounts(requests=200, errors=10),
            GOOD,
            "5 % of 200 requests failed, 1 % are allowed",
        ),
        (
            {"maxErrorRateIncrease": "0.01"},
            RevisionCounts(requests=200, errors=6),
            RevisionCounts(requests=200, errors=2),
            "3 % of 200 requests failed, 1 % of the revision in service, and 1 % more are allowed",
        ),
        (
            {"maxP99Milliseconds": 100},
            RevisionCounts(requests=100, latency={40: 98, 64: 2}),
            GOOD,
            "its p99 is 256 ms, 100 ms are allowed",
        ),
        (
            {"maxP99Ratio": "1.5"},
            RevisionCounts(requests=100, latency={56: 100}),
            RevisionCounts(requests=100, latency={48: 100}),
            "its p99 is 128 ms, that of the revision in service 64 ms, and 1.5 times as much is allowed",
        ),
        (
            {"minAgreement": "0.98"},
            RevisionCounts(requests=100, compared=100, agreement=90.0, flips={"good -> bad": 10}),
            GOOD,
            "it agrees with the revision in service on 90 % of 100 copied requests, 98 % are asked for "
            "(good -> bad 10 times)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_canary_that_breaks_a_limit_is_rolled_back_with_the_figure(
    limits: dict[str, Any], new: RevisionCounts, old: RevisionCounts, says: str
) -> None:
    spec = rollout(steps=STEPS, mirror={"percent": 10}, analysis={**ANALYSIS, **limits})
    cluster = canary(serving(version("v-a"), spec=spec))
    cluster.counts = {"v-a": old, "v-b": new}
    step(cluster, 10)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}
    expected = f"Version v-b was rolled back: {says}. Version v-a still answers requests."
    assert stalled(cluster) == (Reason.ROLLED_BACK, expected)
    # The same figures within the limits change nothing.
    fine = canary(serving(version("v-a"), spec=spec))
    fine.counts = {"v-a": GOOD, "v-b": GOOD.model_copy(update={"compared": 100, "agreement": 100.0})}
    step(fine, 10)
    assert fine.weights() == {"v-a": 95, "v-b": 5}


def test_a_step_goes_on_only_after_a_judgement_and_its_time() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, analysis={**ANALYSIS, "maxErrorRate": "0.01"})))
    cluster.counts = {"v-a": GOOD, "v-b": GOOD}
    step(cluster, 290)
    assert cluster.weights() == {"v-a": 95, "v-b": 5}
    assert [each.error_rate for each in cluster.status.revisions] == ["0.002", "0.002"]
    step(cluster, 10)
    assert cluster.weights() == {"v-a": 75, "v-b": 25}


@pytest.mark.parametrize(
    ("then", "weights"),
    [
        ("Hold", {"v-a": 95, "v-b": 5}),
        ("Promote", {"v-a": 75, "v-b": 25}),
        ("RollBack", {"v-a": 100, "v-b": 0}),
    ],
)
def test_too_few_requests_are_neither_good_nor_bad(then: str, weights: dict[str, int]) -> None:
    analysis = {**ANALYSIS, "maxErrorRate": "0", "onInconclusive": then, "inconclusiveAfterSeconds": 60}
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, analysis=analysis)))
    cluster.counts = {"v-b": RevisionCounts(requests=12, errors=12)}
    step(cluster, 300)
    assert cluster.weights() == {"v-a": 95, "v-b": 5}
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and "12 of 50 requests in 300 s" in ready[2]
    step(cluster, 60)
    assert cluster.weights() == weights


def test_a_failed_judgement_rolls_back_also_while_the_user_has_paused() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(steps=MANUAL, analysis={**ANALYSIS, "maxErrorRate": "0.01"})))
    cluster.counts = {"v-b": RevisionCounts(requests=100, errors=50)}
    step(cluster, 10)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}


def test_as_many_judgements_may_fail_as_the_spec_allows_counted_once_in_each_interval() -> None:
    analysis = {**ANALYSIS, "maxErrorRate": "0.01", "failureLimit": 1}
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, analysis=analysis)))
    cluster.counts = {"v-b": RevisionCounts(requests=100, errors=50)}
    step(cluster, 10)
    assert cluster.weights() == {"v-a": 95, "v-b": 5}
    step(cluster, 5)
    assert cluster.status.rollout and cluster.status.rollout.failures == 1
    assert cluster.weights() == {"v-a": 95, "v-b": 5}, "the same interval is not judged twice"
    step(cluster, 5)
    assert cluster.weights() == {"v-a": 100, "v-b": 0}


def test_a_measure_in_dry_run_only_reports_and_no_auto_rollback_only_holds() -> None:
    dry = {**ANALYSIS, "maxErrorRate": "0.01", "dryRun": ["maxErrorRate"]}
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, analysis=dry)))
    cluster.counts = {"v-b": RevisionCounts(requests=100, errors=50)}
    step(cluster, 300)
    assert cluster.weights() == {"v-a": 75, "v-b": 25}
    held = {**ANALYSIS, "maxErrorRate": "0.01"}
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, analysis=held, autoRollback=False)))
    cluster.counts = {"v-b": RevisionCounts(requests=100, errors=50)}
    step(cluster, 300)
    assert cluster.weights() == {"v-a": 95, "v-b": 5}


def test_without_the_replicas_word_a_step_with_an_analysis_is_held() -> None:
    analysis = {**ANALYSIS, "maxErrorRate": "0.01", "onInconclusive": "Promote"}
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, analysis=analysis)))
    cluster.held = None
    for _ in range(6):
        cluster.now += timedelta(seconds=300)
        cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-a": 95, "v-b": 5}


def test_a_rollout_that_no_replica_can_be_asked_about_says_so_and_keeps_the_canary() -> None:
    cluster = canary(serving(version("v-a")))
    cluster.replicas = {}
    for _ in range(4):
        cluster.now += timedelta(seconds=20)
        cluster.carry_out(cluster.plan())
        cluster.kuberay_observes()
    assert cluster.layout.canary is not None and cluster.layout.stable.version == "v-b"
    ready = cluster.condition(ConditionType.READY)
    assert ready is not None and "No server replica can be asked on port 8001" in ready[2]


def test_an_analysis_without_steps_has_one_step_of_its_own() -> None:
    cluster = canary(serving(version("v-a"), spec=rollout(analysis={**ANALYSIS, "maxErrorRate": "0.01"})))
    assert cluster.weights() == {"v-a": 90, "v-b": 10}
    mirrored = canary(serving(version("v-a"), spec=rollout(mirror={"percent": 10})))
    assert mirrored.weights() == {"v-a": 100, "v-b": 0} and mirrored.layout.step == 0


@pytest.mark.parametrize("strategy", ["InPlace", "BlueGreen"])
def test_in_place_and_blue_green_return_to_the_version_before(strategy: str) -> None:
    cluster = serving(version("v-a"), spec=rollout(strategy=strategy))
    cluster.job = job(version("v-b"), version("v-a"))
    step(cluster)
    assert cluster.weights() == {"v-b": 100} and cluster.layout.canary is None
    cluster.settle(2)
    ready = cluster.condition(ConditionType.READY)
    assert ready == ("True", Reason.SERVING, "Version v-b answers requests.")
    cluster.broken = {"v-c"}
    cluster.job = job(version("v-c"), version("v-b"))
    cluster.settle(3)
    assert cluster.weights() == {"v-b": 100}
    said = "Version v-c does not start: one byte differs. Version v-b still answers requests."
    assert stalled(cluster) == (Reason.REVISION_FAILED, said)
    cluster.settle(2)
    assert cluster.plan().empty


def test_a_long_outage_of_a_version_in_service_does_not_bring_the_one_before_back() -> None:
    cluster = serving(version("v-a"), spec=rollout(strategy="InPlace"))
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.settle()
    assert cluster.weights() == {"v-b": 100}
    cluster.applications[names.SERVER] = ApplicationView("UNHEALTHY", "A replica died.")
    cluster.held = None
    cluster.kuberay_observes()
    for _ in range(3):
        cluster.carry_out(cluster.plan())
        cluster.now += timedelta(hours=1)
    assert cluster.weights() == {"v-b": 100} and not cluster.status.rejected


def test_blue_green_builds_another_ray_cluster_and_the_others_do_not() -> None:
    clusters = {}
    for strategy in ("Canary", "InPlace", "BlueGreen"):
        cluster = serving(version("v-a"), spec=rollout(strategy=strategy))
        before = cluster.manifest["spec"]["rayClusterConfig"]
        cluster.job = job(version("v-b"), version("v-a"))
        cluster.settle()
        clusters[strategy] = cluster.manifest["spec"]["rayClusterConfig"] != before
    assert clusters == {"Canary": False, "InPlace": False, "BlueGreen": True}


def test_another_pod_shape_moves_to_a_second_cluster_without_a_canary_on_the_first() -> None:
    cluster = serving(version("v-a"), spec=rollout(steps=STEPS))
    bigger = {**rollout(steps=STEPS), "runtime": {"resources": {"limits": {"memory": "3Gi"}}}}
    cluster.spec = ModelDeploymentSpec.model_validate(bigger)
    cluster.job = job(version("v-b"), version("v-a"))
    step(cluster)
    assert cluster.weights() == {"v-b": 100} and cluster.layout.canary is None


def test_a_new_version_while_a_second_cluster_comes_up_goes_there_at_once() -> None:
    cluster = serving(version("v-a"), spec=rollout(steps=STEPS))
    bigger = {**rollout(steps=STEPS), "runtime": {"resources": {"limits": {"memory": "3Gi"}}}}
    cluster.spec = ModelDeploymentSpec.model_validate(bigger)
    cluster.carry_out(cluster.plan())
    assert cluster.server
    cluster.server = replace(cluster.server, upgrading=True, applications={})
    cluster.job = job(version("v-b"), version("v-a"))
    cluster.carry_out(cluster.plan())
    assert cluster.weights() == {"v-b": 100} and cluster.layout.canary is None


def test_a_first_version_that_never_answered_is_replaced_at_once_by_the_next() -> None:
    cluster = Cluster(rollout(steps=STEPS))
    cluster.broken = {"v-a"}
    cluster.settle(3)
    assert cluster.weights() == {"v-a": 100} and not cluster.status.history
    cluster.job = job(version("v-b"), version("v-a"))
    step(cluster)
    assert cluster.weights() == {"v-b": 100} and cluster.layout.canary is None


WISHES = st.sampled_from(["promote", "pause", "abort", "skip"])
EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["work", "wait", "stop early", "wish", "errors", "fine"]),
        st.integers(0, 400),
        WISHES,
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_whatever_happens_in_a_rollout_every_request_has_somebody_who_answers(
    events: list[tuple[str, str, int, str]],
) -> None:
    analysis = {**ANALYSIS, "maxErrorRate": "0.01"}
    cluster = serving(version("v-a"), spec=rollout(steps=STEPS, analysis=analysis))
    for number, (letter, what, seconds, wish) in enumerate(events):
        cluster.job = job(version(f"v-{letter}"), *(version(f"v-{other}") for other in "abc" if other != letter))
        if what == "wish":
            cluster.meta = replace(cluster.meta, wishes={wish: f"1#{number}"})
        if what in ("errors", "fine"):
            bad = RevisionCounts(requests=100, errors=50)
            cluster.counts = {f"v-{each}": bad if what == "errors" else GOOD for each in "abc"}
        cluster.carry_out(cluster.plan(), actions=0 if what == "stop early" else None)
        layout = cluster.layout
        assert sum(layout.weights.values()) == 100
        for name in (name for name, weight in layout.weights.items() if weight):
            view = cluster.applications.get(name)
            assert cluster.held == name or (view and view.status == "RUNNING"), "requests went to what does not run"
        if what == "work":
            cluster.ray_works()
        cluster.now += timedelta(seconds=seconds)
    cluster.meta, cluster.counts = replace(cluster.meta, wishes={}, retry="again"), {f"v-{e}": GOOD for e in "abc"}
    cluster.job = job(version("v-c"), version("v-a"))
    cluster.settle(80)
    assert cluster.weights() == {"v-c": 100} and cluster.plan().empty


def test_what_a_replica_counted_before_it_ended_counts_on() -> None:
    limits = {**ANALYSIS, "maxErrorRate": "0.01"}
    cluster = canary(serving(version("v-a"), spec=rollout(steps=STEPS, analysis=limits)))
    [name] = [name for name in cluster.applications if name != names.SERVER]
    window = cluster.layout.window
    counts = {name: RevisionCounts(requests=48, errors=3, latency={30: 45})}
    cluster.ended = [
        ServerReport(replica="ended-1", ready=True, window=window, counts=counts),
        ServerReport(replica="ended-2", ready=True, window="of another step", counts=counts),
    ]
    cluster.counts = {"v-b": RevisionCounts(requests=2, latency={30: 2})}
    step(cluster, 10)
    reason, message = stalled(cluster)
    assert reason == Reason.ROLLED_BACK
    assert "6 % of 50 requests failed, 1 % are allowed" in message
