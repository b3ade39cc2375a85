"""versionHistoryLimit: what goes, what never does, and that no spec is answered by a version that is gone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.finetunejob import FineTuneJobStatus
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.reasons import Reason
from luthier_operator.gather.versions_in_use import versions_in_use
from luthier_operator.model.views import FineTuneJobView
from luthier_operator.plan.finetunejob import version_pruning as history
from luthier_operator.plan.finetunejob.version_pruning import surplus
from luthier_operator.plan.target import NoTarget, Target, target_of

pytestmark = pytest.mark.unit

RATES = ["0.00002", "0.001", "0.003", "0.002", "0.004"]


def version(world: Any, rate: str, *, promotable: bool = True) -> None:
    """Publish the version of a learning rate."""
    world.edit(hyperparameters={"learningRate": rate})
    world.settle()
    world.prepare_ends()
    world.settle()
    if world.job("train"):
        world.train_ends(promotable=promotable)
        world.settle()


def versions(world: Any, count: int) -> None:
    for rate in RATES[:count]:
        version(world, rate)


def known(world: Any) -> list[str]:
    return [each["version"] for each in world.status["versions"]]


def entry(world: Any, name: str) -> Any:
    return next(each for each in world.status["versions"] if each["version"] == name)


def prune(world: Any) -> None:
    """Let the Job that removes do its work, and the operator take note."""
    world.removal_ends("prune")
    world.settle()


@pytest.fixture
def limited(make_world: Any, make_spec: Any) -> Any:
    """Three versions, of which v3 answers, and a limit of one; the Job that removes is there."""
    world = make_world(make_spec())
    versions(world, 3)
    world.edit(versionHistoryLimit=1)
    world.settle()
    return world


def test_versions_over_the_limit_are_removed_and_forgotten(limited: Any) -> None:
    assert known(limited) == ["v3", "v2", "v1"], "nothing is forgotten before it is gone"
    prune(limited)
    assert known(limited) == ["v3"] and sorted(limited.registry.values()) == ["v3"]
    assert limited.ready["status"] == "True" and limited.events[-1] == Reason.PRUNED
    assert limited.plan().empty


def test_without_a_limit_nothing_is_ever_removed(world: Any) -> None:
    versions(world, 4)
    assert len(known(world)) == 4 and world.job("prune", live=False) is None


def test_each_new_version_sends_the_oldest_away(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(versionHistoryLimit=2))
    versions(world, 2)
    assert world.job("prune", live=False) is None
    for number, rate in enumerate(RATES[2:], start=3):
        version(world, rate)
        prune(world)
        assert known(world) == [f"v{number}", f"v{number - 1}"]


def test_a_version_counts_as_new_when_a_spec_was_answered_with_it_last(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(versionHistoryLimit=2))
    versions(world, 2)
    world.edit(hyperparameters={"learningRate": RATES[0]})
    world.settle()
    version(world, RATES[2])
    prune(world)
    assert known(world) == ["v3", "v1"]


def test_what_is_served_is_kept_beyond_the_limit_and_goes_once_it_is_not(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec())
    versions(world, 3)
    world.in_use = {"v1"}
    world.edit(versionHistoryLimit=1)
    world.settle()
    prune(world)
    assert known(world) == ["v3", "v1"]
    assert world.plan().empty
    assert world.plan().requeue_after_s, "nobody tells when it is not served any more"
    world.in_use = set()
    world.settle()
    prune(world)
    assert known(world) == ["v3"]


def test_what_is_served_is_not_marked_by_the_very_plan_that_publishes_its_successor(
    make_world: Any, make_spec: Any
) -> None:
    """The Job is complete before its result was read, so that plan already looks for what is over the limit."""
    world = make_world(make_spec(versionHistoryLimit=1))
    versions(world, 1)
    world.in_use = {"v1"}
    version(world, RATES[1])
    assert known(world) == ["v2", "v1"] and "removing" not in entry(world, "v1")
    version(world, RATES[2])
    prune(world)
    assert known(world) == ["v3", "v1"]


def test_what_comes_into_use_after_its_mark_and_before_its_removal_answers_again(
    make_world: Any, make_spec: Any
) -> None:
    world = make_world(make_spec())
    versions(world, 3)
    world.edit(versionHistoryLimit=1)
    while "removing" not in entry(world, "v1"):
        world.step()
    assert world.job("prune", live=False) is None
    world.in_use = {"v1"}
    world.settle()
    prune(world)
    assert known(world) == ["v3", "v1"] and "removing" not in entry(world, "v1")


def test_what_comes_into_use_while_its_removal_runs_stays_marked_since_it_may_not_be_whole(limited: Any) -> None:
    limited.in_use = {"v1"}
    limited.step()
    assert entry(limited, "v1")["removing"] is True


def test_what_an_alias_names_is_kept_and_the_status_says_so(limited: Any) -> None:
    limited.aliases = {"production": "v1"}
    prune(limited)
    assert known(limited) == ["v3", "v1"]
    assert entry(limited, "v1")["kept"] == "The alias production points at it."
    assert "removing" not in entry(limited, "v1")
    assert limited.plan().empty, "it is not asked for again and again"
    limited.edit(hyperparameters={"learningRate": RATES[0]})
    limited.settle()
    assert limited.ready["status"] == "True" and limited.status["artifact"]["version"] == "v1"


def test_what_an_alias_named_is_asked_for_again_with_the_next_version(limited: Any) -> None:
    limited.aliases = {"production": "v1"}
    prune(limited)
    limited.aliases = {}
    version(limited, RATES[3])
    prune(limited)
    assert known(limited) == ["v4"] and list(limited.registry.values()) == ["v4"]


def test_the_last_version_that_passed_its_gates_is_kept(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec())
    versions(world, 2)
    version(world, RATES[2], promotable=False)
    version(world, RATES[3], promotable=False)
    world.edit(versionHistoryLimit=1)
    world.settle()
    prune(world)
    assert known(world) == ["v4", "v2"]


def test_a_limit_that_is_raised_forgets_why_something_was_kept(limited: Any) -> None:
    limited.aliases = {"production": "v1"}
    prune(limited)
    limited.edit(versionHistoryLimit=5)
    limited.settle()
    assert "kept" not in entry(limited, "v1")


def test_a_spec_whose_version_was_removed_is_trained_anew(limited: Any) -> None:
    prune(limited)
    limited.edit(hyperparameters={"learningRate": RATES[0]})
    limited.settle()
    limited.prepare_ends()
    limited.settle()
    limited.train_ends()
    limited.settle()
    assert limited.trained.count(limited.key()) == 2
    assert limited.status["artifact"]["version"] == "v4" and limited.ready["reason"] == Reason.PUBLISHED


def test_a_spec_that_comes_back_while_its_version_goes_looks_it_up_and_never_meets_the_removal(limited: Any) -> None:
    limited.edit(hyperparameters={"learningRate": RATES[0]})
    plan = limited.step()
    assert not plan.applies and [delete.name.rpartition("-")[2] for delete in plan.deletes] == ["prune"]
    assert limited.ready["status"] == "False", "a version that goes answers nothing"
    limited.settle()
    limited.prepare_ends()
    limited.settle()
    assert limited.status["artifact"]["version"] == "v1" and limited.ready["reason"] == Reason.REUSED
    prune(limited)
    assert known(limited) == ["v1"] and list(limited.registry.values()) == ["v1"]


def test_a_spec_that_comes_back_before_its_old_jobs_are_gone_does_not_take_their_word(
    make_world: Any, make_spec: Any
) -> None:
    world = make_world(make_spec())
    versions(world, 2)
    world.edit(versionHistoryLimit=1)
    world.step()
    assert entry(world, "v1")["removing"] is True
    world.edit(hyperparameters={"learningRate": RATES[0]})
    world.settle()
    assert world.job("prepare"), "it is prepared anew"
    world.prepare_ends()
    world.settle()
    assert (world.status["artifact"]["version"], world.ready["reason"]) == ("v1", Reason.REUSED)


def test_a_version_is_forgotten_only_when_no_job_is_left_that_would_bring_it_up_again(limited: Any) -> None:
    (job,) = [job for job in limited.jobs.values() if job["metadata"]["name"].endswith("-train")]
    again = {**job, "metadata": {**job["metadata"], "name": "stays", "uid": "uid-stays"}}
    hashes = {"luthier.dev/spec-hash": entry(limited, "v1")["specHash"]}
    name = "reviews-0123456789-train"
    again["metadata"] |= {"name": name, "annotations": {**job["metadata"]["annotations"], **hashes}}
    again["metadata"]["labels"] = {**job["metadata"]["labels"], "luthier.dev/run": "reviews-0123456789"}
    limited.jobs[name] = again
    limited.removal_ends("prune")
    limited.step()
    assert known(limited) == ["v3", "v1"]
    limited.settle()
    assert known(limited) == ["v3"] and name not in limited.jobs


def test_old_jobs_of_a_version_go_before_it_does(limited: Any) -> None:
    left = {job["metadata"]["annotations"].get("luthier.dev/spec-hash") for job in limited.jobs.values()}
    gone = {each["specHash"] for each in limited.status["versions"] if each.get("removing")}
    assert len(gone) == 2 and not left & gone


def test_removing_waits_until_nothing_runs_and_gives_way_to_a_run(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec())
    versions(world, 2)
    world.edit(hyperparameters={"learningRate": RATES[2]}, versionHistoryLimit=1)
    world.settle()
    assert world.job("prepare") and world.job("prune", live=False) is None
    world.edit(hyperparameters={"learningRate": RATES[1]})
    world.settle()
    assert world.job("prune")
    world.edit(hyperparameters={"learningRate": RATES[3]})
    world.settle()
    assert world.job("prepare") and world.job("prune", live=False) is None


def test_a_removal_that_fails_is_said_once_and_its_versions_answer_nothing(limited: Any) -> None:
    failure = Failure(reason=Reason.STORAGE_DENIED, message="The key may not delete.")
    limited.end(limited.job("prune"), ExitCode.STORAGE_DENIED, Result(failure=failure).to_termination_message())
    limited.settle()
    assert limited.ready["status"] == "True", "what answers the spec is as it was"
    assert entry(limited, "v1")["kept"] == "It could not be removed: The key may not delete."
    assert limited.events.count(Reason.REMOVAL_FAILED) == 1
    limited.edit(hyperparameters={"learningRate": RATES[0]})
    limited.settle()
    assert limited.job("prepare"), "part of it may be gone, so storage is asked"


def test_a_removal_whose_result_is_lost_is_made_again(limited: Any) -> None:
    limited.removal_ends("prune")
    limited.pods.clear()
    limited.settle()
    prune(limited)
    assert known(limited) == ["v3"]


def test_nothing_is_marked_or_removed_before_the_api_server_itself_was_asked_what_is_served(
    make_world: Any, make_spec: Any
) -> None:
    world = make_world(make_spec())
    versions(world, 2)
    world.edit(versionHistoryLimit=1)
    plan = world.step()
    assert plan.assumes_gone and not plan.applies
    for _ in range(5):
        plan = world.step()
        world.collect()
        if plan.applies:
            break
    assert plan.assumes_gone and plan.applies


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(
        st.tuples(
            st.sampled_from(["edit", "edit", "limit", "serve", "alias", "prune", "lose"]),
            st.integers(0, 4),
            st.lists(st.integers(0, 5), max_size=3),
        ),
        min_size=4,
        max_size=18,
    )
)
def test_in_any_history_what_answers_exists_and_what_is_served_or_aliased_stays(
    make_world: Any, make_spec: Any, acts: list[tuple[str, int, list[int]]]
) -> None:
    world = make_world(make_spec(versionHistoryLimit=1))
    for act, number, cuts in acts:
        made = sorted(world.registry.values())
        match act:
            case "edit":
                world.edit(hyperparameters={"learningRate": RATES[number]})
            case "limit":
                world.edit(versionHistoryLimit=number + 1)
            case "serve":
                # What is told to be served is a version that answers, or did.
                world.in_use = {known(world)[0]} if number and world.status.get("versions") else set()
            case "alias":
                world.aliases = {"production": made[number % len(made)]} if made and number else {}
            case "lose":
                world.pods.clear()
            case "prune" if world.job("prune") and "deletionTimestamp" not in world.job("prune")["metadata"]:
                world.removal_ends("prune")
        spared = (world.in_use | set(world.aliases.values())) & set(world.registry.values())
        for cut in cuts:
            world.step(cut)
        settle(world)
        assert spared <= set(world.registry.values())
        going = {each["version"] for each in world.status["versions"] if each.get("removing")}
        assert not going & world.in_use, "or it could not be served again"
        if world.ready["status"] == "True":
            assert world.status["artifact"]["version"] == world.registry[world.key()]
    assert world.plan().empty


def settle(world: Any) -> None:
    """Let runs and removals come to their ends, one after the other."""
    for _ in range(12):
        world.settle()
        if world.job("train"):
            world.train_ends()
        elif world.job("prepare"):
            world.prepare_ends()
        elif world.job("prune"):
            world.removal_ends("prune")
        else:
            return
    raise AssertionError("it does not come to rest")


def test_which_versions_are_served(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(versionHistoryLimit=1))
    world.edit(versionHistoryLimit=None)
    versions(world, 3)
    resource = world.resource()

    def deployment(model: dict[str, Any], *revisions: str, namespace: str = "team") -> dict[str, Any]:
        uris = [{"uri": f"s3://models/sentiment/versions/{each}"} for each in revisions]
        metadata = {"name": "d", "namespace": namespace}
        return {"metadata": metadata, "spec": {"model": model}, "status": {"revisions": uris}}

    follows, pins = {"fineTuneJobRef": {"name": "reviews"}}, {"fineTuneJobRef": {"name": "reviews", "version": "v1"}}
    names = {"uri": "s3://models/sentiment/versions/v2/", "digest": "sha256:0"}
    table = [
        (deployment(follows), {"v3"}),
        (deployment(follows, "v1"), {"v3", "v1"}),
        (deployment(pins), {"v1"}),
        (deployment(names), {"v2"}),
        (deployment({"fineTuneJobRef": {"name": "other"}}), set()),
        (deployment(pins, namespace="elsewhere"), set()),
        (deployment(names, namespace="elsewhere"), set()),
        (deployment(names, "v2", namespace="elsewhere"), {"v2"}),
    ]
    for raw, expected in table:
        assert versions_in_use(resource, [raw]) == expected
    assert versions_in_use(resource, [raw for raw, _ in table]) == {"v1", "v2", "v3"}


def test_a_version_that_goes_is_no_longer_given_out_to_serve(limited: Any) -> None:
    resource = limited.resource()
    view = FineTuneJobView("reviews", resource.spec.output, resource.status)

    def told(**reference: str) -> Target | NoTarget:
        model = {"fineTuneJobRef": {"name": "reviews", **reference}}
        return target_of(ModelDeploymentSpec.model_validate({"model": model}).model, view)

    follows, pins = told(), told(version="v1")
    assert isinstance(follows, Target) and follows.version == "v3"
    assert isinstance(pins, NoTarget) and "has no version v1; it has: v3" in pins.message


def test_versions_are_counted_and_not_the_specs_that_they_answer(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec())
    versions(world, 2)
    one, two = world.resource().status.versions
    again = two.model_copy(update={"spec_hash": "0" * 64})
    spec = make_spec(versionHistoryLimit=2)
    assert history.surplus((one, two, again), spec, ()) == set()
    assert history.surplus((one, two, again), make_spec(versionHistoryLimit=1), ()) == {two.uri}
    for limit, used in itertools.product((1, 2), ((), (two.version,))):
        over = history.surplus((one, two, again), make_spec(versionHistoryLimit=limit), used)
        assert (two.uri in over) == (limit == 1 and not used)


def test_a_version_that_comes_into_service_after_it_was_marked_is_not_removed(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec())
    versions(world, 2)
    world.edit(versionHistoryLimit=1)
    world.step()
    assert entry(world, "v1")["removing"] and world.job("prune") is None
    world.in_use.add("v1")
    world.settle()
    assert world.job("prune") is None
    world.in_use.clear()
    world.settle()
    prune(world)
    assert known(world) == ["v2"]


def test_of_the_versions_that_passed_their_gates_the_newest_that_stays_is_kept(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec())
    versions(world, 2)
    version(world, RATES[2], promotable=False)
    found = FineTuneJobStatus.model_validate(world.status).versions
    limited = make_spec(versionHistoryLimit=1)
    assert [each.version for each in found] == ["v3", "v2", "v1"]
    assert surplus(tuple(found), limited, ()) == {found[2].uri}
    removing = (found[0], found[1].model_copy(update={"removing": True}), found[2])
    assert surplus(removing, limited, ()) == {found[1].uri}, "v2 is going already, so v1 is the last"


def test_a_batch_prediction_needs_its_version_until_it_has_ended(make_world: Any, make_spec: Any) -> None:
    world = make_world(make_spec(versionHistoryLimit=1))
    world.edit(versionHistoryLimit=None)
    versions(world, 3)
    resource = world.resource()

    def batch(state: str | None, *, generation: int = 1, namespace: str = "team") -> dict[str, Any]:
        run = {"run": {"name": "b-1", "state": state}, "modelUri": "s3://models/sentiment/versions/v1"} if state else {}
        metadata = {"name": "b", "namespace": namespace, "generation": generation}
        spec = {"model": {"fineTuneJobRef": {"name": "reviews"}}}
        return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": 1, **run}}

    assert versions_in_use(resource, [batch(None)]) == {"v3"}
    assert versions_in_use(resource, [batch("Running")]) == {"v1", "v3"}
    assert versions_in_use(resource, [batch("Running", namespace="elsewhere")]) == {"v1"}
    assert versions_in_use(resource, [batch("Succeeded")]) == versions_in_use(resource, [batch("Failed")]) == set()
    assert versions_in_use(resource, [batch("Failed", generation=2)]) >= {"v3"}, "it was edited and begins anew"
