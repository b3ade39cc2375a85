"""The condition Drifting: from the counts of all replicas, above its limit, with enough requests, and quietly."""

from datetime import timedelta
from typing import Any

import pytest

from luthier_api.documents import DriftReport, Profile, ReferenceDocument, ServerReport
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests.rayservice import Application
from luthier_operator.plan.modeldeployment.drift import INTERVAL_S, judge
from support.operator.serving import FOLLOWING, Cluster, serving, version

pytestmark = pytest.mark.unit

LABELS = ["bad", "good"]
REFERENCE = ReferenceDocument(label_names=LABELS, unknown_token_id=1, profile=Profile(texts=1000, labels=[500, 500, 0]))


def observing(**drift: Any) -> dict[str, Any]:
    return {**FOLLOWING, "observe": {"drift": drift}}


def counted(bad: int, good: int) -> Profile:
    return Profile(texts=bad + good, labels=[bad, good, 0])


class Drifting:
    """A cluster whose replicas count texts; each replica says how many bad and good ones."""

    def __init__(self, spec: dict[str, Any], reference: ReferenceDocument | None = REFERENCE) -> None:
        self.cluster: Cluster = serving(version("v-a"), spec=spec)
        self.reference = reference

    def count(self, *replicas: tuple[int, int]) -> tuple[str, str, str] | None:
        revision = self.cluster.layout.stable.name
        self.cluster.others = [
            ServerReport(
                replica=f"replica-{number}",
                ready=True,
                models=self.cluster.reports()[0].report.models,  # type: ignore[union-attr]
                drift={revision: DriftReport(reference=self.reference, recent=counted(*each))},
            )
            for number, each in enumerate(replicas)
        ]
        self.cluster.now += timedelta(seconds=INTERVAL_S)
        self.plan = self.cluster.plan()
        self.cluster.carry_out(self.plan)
        return self.cluster.condition(ConditionType.DRIFTING)


def test_another_label_mix_is_drift_above_the_limit_and_the_message_has_the_figures() -> None:
    drifting = Drifting(observing())
    assert drifting.count((400, 412)) == (
        "False", Reason.WITHIN_LIMIT,
        "Version v-a: the largest PSI is 0.00022 (label mix) over 812 requests; limit 0.25.",
    )  # fmt: skip
    found = drifting.count((650, 162))
    assert found is not None and found[:2] == ("True", Reason.DRIFTING)
    assert found[2].startswith("Version v-a: label mix: PSI 0.42 over 812 requests; limit 0.25. Its texts or answers")
    [event] = [note for note in drifting.plan.events if note.reason is Reason.DRIFTING]
    assert event.warning and event.message == found[2]
    assert drifting.plan.requeue_after_s == INTERVAL_S


def test_the_counts_of_replicas_are_added_up_before_they_are_compared() -> None:
    drifting = Drifting(observing())
    alone = [drifting.count(each) for each in ((600, 0), (0, 600))]
    assert [each[0] for each in alone if each] == ["True", "True"]
    together = drifting.count((600, 0), (0, 600))
    assert together is not None and together[0] == "False", "a mean of the replicas' figures would be an alarm"


def test_with_too_few_requests_nothing_is_concluded() -> None:
    drifting = Drifting(observing(minRequests=100, windowSeconds=600))
    assert drifting.count((99, 0)) == (
        "Unknown", Reason.TOO_FEW_REQUESTS,
        "Version v-a has had fewer than 100 requests in the last 600 s; limit 0.25.",
    )  # fmt: skip
    assert drifting.count((60, 0), (40, 0)) is not None
    found = drifting.cluster.condition(ConditionType.DRIFTING)
    assert found is not None and found[0] == "True", "two replicas have enough together"


def test_a_small_reference_gives_no_alarm_for_what_chance_makes_of_it() -> None:
    small = REFERENCE.model_copy(update={"profile": Profile(texts=16, labels=[8, 8, 0])})
    found = Drifting(observing(), small).count((380, 120))
    assert found is not None and found[:2] == ("False", Reason.WITHIN_LIMIT)
    assert "chance alone makes up to 0.72 of a reference of 16" in found[2]
    large = Drifting(observing()).count((380, 120))
    assert large is not None and large[0] == "True"


def test_a_version_without_a_reference_says_so_and_is_served() -> None:
    drifting = Drifting(observing(), reference=None)
    found = drifting.count((900, 0))
    assert found is not None and found[:2] == ("Unknown", Reason.NO_REFERENCE) and "train it again" in found[2]
    ready = drifting.cluster.condition(ConditionType.READY)
    assert ready is not None and ready[0] == "True"


def test_figures_that_move_without_a_change_of_what_is_said_write_nothing() -> None:
    drifting = Drifting(observing())
    for mixes in (((700, 112), (712, 112), (720, 150)), ((400, 412), (405, 412), (412, 405))):
        drifting.count(mixes[0])
        for mix in mixes[1:]:
            drifting.count(mix)
            assert drifting.plan.status is None and not drifting.plan.events


def test_the_end_of_drift_is_an_event_too_and_silence_is_none() -> None:
    drifting = Drifting(observing())
    drifting.count((812, 0))
    drifting.count((3, 0))
    assert not drifting.plan.events, "too few requests say nothing"
    drifting.count((812, 0))
    drifting.count((406, 406))
    assert [(note.reason, note.warning) for note in drifting.plan.events] == [(Reason.WITHIN_LIMIT, False)]


def test_another_limit_is_judged_anew_and_changes_nothing_on_the_server() -> None:
    drifting = Drifting(observing())
    drifting.count((650, 162))
    cluster = drifting.cluster
    cluster.spec = ModelDeploymentSpec.model_validate(observing(limit="0.5"))
    found = drifting.count((650, 162))
    assert found is not None and found[0] == "False" and "limit 0.5" in found[2]
    assert not drifting.plan.applies


def test_who_does_not_ask_for_drift_has_no_condition_and_is_not_looked_at_by_the_clock() -> None:
    drifting = Drifting(FOLLOWING)
    for _ in range(2):
        assert drifting.count((812, 0)) is None
    assert drifting.plan.empty and drifting.plan.requeue_after_s is None


def test_several_features_are_named_with_their_figures() -> None:
    reference = ReferenceDocument(
        label_names=LABELS,
        unknown_token_id=1,
        profile=Profile(texts=1000, labels=[500, 500, 0], unknown=[1000, *[0] * 7], tokens=[0, 500, 500, *[0] * 11]),
    )
    recent = Profile(
        texts=1000, labels=[500, 500, 0], unknown=[0, 0, 1000, *[0] * 5], tokens=[0, 0, 0, 1000, *[0] * 10]
    )
    spec = ModelDeploymentSpec.model_validate(observing()).observe
    assert spec and spec.drift
    report = ServerReport(replica="r", ready=True, drift={"rev": DriftReport(reference=reference, recent=recent)})
    verdict = judge(spec.drift, Application("rev", "v-a", {}), [report])
    assert verdict.over == ("token lengths", "unknown tokens")
    assert "token lengths: PSI 1" in verdict.message and ", unknown tokens: PSI 1" in verdict.message
