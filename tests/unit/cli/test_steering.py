"""What a steering command writes, and when it refuses because the annotation would do nothing."""

from __future__ import annotations

import pytest

from luthier.errors import Invalid
from luthier.kinds import Resource
from luthier.steering import pin, previous_version, retry, steer, suspend
from luthier_api.modeldeployment import WISHES
from support.cli import V1, V2, batch, condition, deployment, job, predicted, predicting, rolling, version

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("wish", WISHES)
def test_a_rollout_is_steered_by_an_annotation_that_names_the_generation(wish: str) -> None:
    change = steer(rolling(), wish)  # type: ignore[arg-type]
    assert change.patch == {"metadata": {"annotations": {f"luthier.dev/{wish}": "7"}}}
    assert change.kubectl == f"kubectl annotate mdep reviews --overwrite luthier.dev/{wish}='7'"
    assert f"{V2} has step 1 of 3, 10 % of the requests" in change.question


def test_asking_a_second_time_gets_a_value_that_was_not_used_before() -> None:
    annotated = rolling({"luthier.dev/promote": "7"})
    assert steer(annotated, "promote").patch["metadata"]["annotations"] == {"luthier.dev/promote": "7#2"}
    handled = rolling({"luthier.dev/promote": "7#2"}, handled={"promote": "7"})
    assert steer(handled, "promote").patch["metadata"]["annotations"] == {"luthier.dev/promote": "7#3"}
    of_an_earlier_spec = rolling({"luthier.dev/promote": "6"}, handled={"promote": "6"})
    assert steer(of_an_earlier_spec, "promote").patch["metadata"]["annotations"] == {"luthier.dev/promote": "7"}


def test_without_a_rollout_there_is_nothing_to_steer() -> None:
    for still in (deployment(currentVersion=V1), rolling(stage="Dropping")):
        with pytest.raises(Invalid, match="so there is nothing to promote"):
            steer(still, "promote")


def test_abort_comes_too_late_once_the_replicas_load_the_version() -> None:
    with pytest.raises(
        Invalid, match="too late to abort: the replicas load the new version; `luthier rollback reviews`"
    ):
        steer(rolling(stage="Loading"), "abort")
    assert steer(rolling(stage="Shifted"), "abort")


def test_a_failed_run_is_tried_again_from_its_checkpoint() -> None:
    failed = job(phase="Failed", conditions=[condition("Stalled")], checkpoint={"step": 500, "uri": "s3://x"})
    change = retry(failed, 1234)
    assert change.patch == {"metadata": {"annotations": {"luthier.dev/retry": "1234"}}}
    assert "try again from step 500" in change.question


def test_a_run_that_has_not_failed_is_not_tried_again() -> None:
    with pytest.raises(Invalid, match="has not failed"):
        retry(job(conditions=[condition("Ready")]), 1)
    unseen = job(observed=6, conditions=[condition("Stalled")])
    with pytest.raises(Invalid, match="has not failed"):
        retry(unseen, 1)


def test_failed_predictions_are_tried_again_and_what_is_stored_is_kept() -> None:
    change = retry(predicting(phase="Failed", conditions=[condition("Stalled")]), 1234)
    assert change.patch == {"metadata": {"annotations": {"luthier.dev/retry": "1234"}}}
    assert change.question == "BatchPrediction reviews: compute the shards that are missing?"
    assert change.kubectl == "kubectl annotate bp reviews --overwrite luthier.dev/retry='1234'"


@pytest.mark.parametrize("resource", [predicting(), predicted()])
def test_predictions_that_have_not_failed_are_not_tried_again(resource: Resource) -> None:
    with pytest.raises(Invalid, match=r"BatchPrediction reviews has not failed \((Predicting|Succeeded)\)"):
        retry(resource, 1)


def test_suspended_predictions_keep_what_is_stored() -> None:
    change = suspend(predicting(), True)
    assert change.patch == {"spec": {"suspend": True}}
    assert "stop the workers; what they have stored stays?" in change.question
    assert "go on?" in suspend(batch(spec={"suspend": True}), False).question


def test_retry_of_a_deployment_that_serves_says_that_it_starts_anew() -> None:
    assert "start the version that it serves anew" in retry(deployment(conditions=[condition("Ready")]), 1).question
    assert "rejected revision" in retry(deployment(conditions=[condition("Stalled")]), 1).question


def test_suspending_twice_is_refused() -> None:
    assert suspend(job(), True).patch == {"spec": {"suspend": True}}
    with pytest.raises(Invalid, match="is not suspended"):
        suspend(job(), False)


HISTORY = [{"name": "rev-2", "version": V2}, {"name": "rev-1", "version": V1}]


def test_the_version_before_is_the_last_other_one_that_had_all_requests() -> None:
    assert previous_version(deployment(currentVersion=V2, history=HISTORY)) == V1
    assert previous_version(rolling(history=[HISTORY[1], HISTORY[0]])) == V2
    with pytest.raises(Invalid, match="no version before"):
        previous_version(deployment(currentVersion=V1, history=HISTORY[1:]))


def test_a_rollback_pins_a_version_that_the_job_still_has() -> None:
    change = pin(deployment(currentVersion=V2), job(versions=[version(V2), version(V1)]), V1)
    assert change.patch == {"spec": {"model": {"fineTuneJobRef": {"version": V1}}}}
    assert f"serve {V1} instead of {V2}" in change.question


def test_a_version_that_is_gone_or_pinned_already_or_not_followed_is_refused() -> None:
    removing = job(versions=[version(V2), version(V1, removing=True)])
    with pytest.raises(Invalid, match=f"has no version {V1}; it has: {V2}"):
        pin(deployment(), removing, V1)
    pinned = deployment(spec={"model": {"fineTuneJobRef": {"name": "reviews", "version": V1}}})
    with pytest.raises(Invalid, match=r"pinned to .* already"):
        pin(pinned, job(versions=[version(V1)]), V1)
    with pytest.raises(Invalid, match="by uri and digest"):
        pin(deployment(spec={"model": {"uri": "s3://x/y/versions/z"}}), None, V1)
