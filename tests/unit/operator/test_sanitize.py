"""What others write into the cluster is bounded, printable and believed only as far as it can be true."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier_api.conditions import merge_conditions
from luthier_api.documents import Prepared, Resolved, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.model.parse import job_view, pod_view
from luthier_operator.model.sanitize import printable
from luthier_operator.plan.pods.diagnosis import clip
from luthier_operator.plan.pods.failures import failure_of, result_of

pytestmark = pytest.mark.unit

SHA = "a" * 64
ESCAPE = "\x1b[2J\u202e\x00"


def pod(**status: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "a-proxy"}, {"name": "main", "resources": {"limits": {"memory": "8Gi"}}}]}
    return {"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": {"phase": "Failed", **status}}


def ended(message: str, exit_code: int = 0, **more: Any) -> dict[str, Any]:
    terminated = {"exitCode": exit_code, "message": message, **more}
    return pod(containerStatuses=[{"name": "main", "state": {"terminated": terminated}}])


@given(st.text())
def test_a_text_is_printable_and_bounded_and_one_that_is_already_stays(text: str) -> None:
    shown = printable(text, 100)
    assert len(shown) <= 100 and all(each.isprintable() or each == "\n" for each in shown)
    assert clip(text).isprintable()
    if text.isprintable() and len(text) <= 100:
        assert shown == text


def test_what_a_pod_says_of_itself_is_bounded_where_it_is_read() -> None:
    long = ESCAPE + "x" * 1_000_000
    waiting = {"waiting": {"reason": "ErrImagePull", "message": long}}
    view = pod_view(pod(reason="Evicted", message=long, containerStatuses=[{"name": "main", "state": waiting}]))
    assert len(view.waiting_message) + len(view.status_message) < 20_000
    assert view.waiting_message.isprintable()
    assert len(pod_view(ended(long)).termination_message) < 10_000


def test_only_the_container_that_luthier_made_speaks_for_the_pod() -> None:
    proxy = {"name": "a-proxy", "state": {"terminated": {"exitCode": 0, "message": "all is well"}}}
    main = {"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    view = pod_view(pod(containerStatuses=[proxy, main]))
    assert (view.exit_code, view.termination_message, view.memory_limit) == (137, "", "8Gi")


@pytest.mark.parametrize("index", ["9" * 5000, "-1", "1e3", "٣", ""])
def test_an_index_that_kubernetes_did_not_write_is_no_index(index: str) -> None:
    raw = pod()
    raw["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": index}
    assert pod_view(raw).index == 0


def job(name: str = "r-1-train", stage: str = "train", run: str = "r-1", **annotations: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": stage, "luthier.dev/run": run}
    owners = [{"uid": "resource", "controller": True}]
    given = {"luthier.dev/spec-hash": SHA, "luthier.dev/run-key": SHA, **annotations}
    metadata = {"name": name, "namespace": "n", "uid": "j", "labels": labels, "annotations": given}
    template = {"spec": {"containers": [{"name": "main", "image": "trainer:1"}]}}
    return {"metadata": {**metadata, "ownerReferences": owners}, "spec": {"template": template}}


@pytest.mark.parametrize(
    ("raw", "ours"),
    [
        pytest.param(job(), True, id="as we make it"),
        pytest.param(job(name="x-train"), False, id="a name that is not its run's"),
        pytest.param(job(stage="prepare"), False, id="a name that is another stage's"),
        pytest.param(job(stage="", name="r-1-"), False, id="no stage"),
        pytest.param(job(stage="watch", name="r-1-watch"), False, id="a stage that there is not"),
        pytest.param(job(**{"luthier.dev/spec-hash": "x"}), False, id="a hash that is none"),
        pytest.param(job(**{"luthier.dev/run-key": "../x"}), False, id="a run key that is none"),
    ],
)
def test_a_job_counts_as_the_operators_only_if_it_can_be(raw: dict[str, Any], ours: bool) -> None:
    assert (job_view(raw).owner_uid == "resource") == ours


def published(**changes: Any) -> str:
    least = {"runKey": SHA, "version": "v1", "uri": "s3://m/s/versions/v1", "digest": f"sha256:{SHA}", "sizeBytes": 1}
    return json.dumps({"published": {**least, **changes}})


def test_a_result_as_the_trainer_writes_it_is_believed() -> None:
    word = result_of(pod_view(ended(published())))
    assert word and word.published and word.published.version == "v1"


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Killed",
        published()[:80],
        published(message="x" * 5000),
        "[" * 4000,
        '{"published": {"version": "\\ud800"}}',
        "\ud800",
        published(version=""),
        published(version=f"v{ESCAPE}", uri=f"s3://m/s/versions/v{ESCAPE}"),
        published(version="../v2", uri="s3://m/s/versions/../v2"),
        published(uri="s3://elsewhere/versions/v2"),
        published(sizeBytes=10**30),
        published(metrics={str(number): "1" for number in range(65)}),
        published(run="another"),
    ],
)
def test_no_other_result_is(message: str) -> None:
    assert result_of(pod_view(ended(message))) is None


@pytest.mark.parametrize("reason", [Reason.SERVING, Reason.PUBLISHED, Reason.NODE_LOST, Reason.QUOTA_EXCEEDED])
def test_a_pod_may_not_call_its_failure_what_only_others_can_know(reason: Reason) -> None:
    message = json.dumps({"failure": {"reason": reason, "message": f"All{ESCAPE}\n\tis well"}})
    failure = failure_of(pod_view(ended(message, ExitCode.INVALID_DATA)))
    assert (failure.reason, failure.message) == (Reason.INVALID_DATA, "All [2J is well.")


def test_a_message_that_is_too_long_for_a_condition_is_cut_and_stops_nothing() -> None:
    rows = [(ConditionType.READY, False, Reason.INVALID_SPEC, "x" * 100_000)]
    (condition,) = merge_conditions([], rows, generation=1, now="2026-01-01T00:00:00Z")
    assert len(condition.message) == 4096


def test_prepare_cannot_choose_the_image_that_trains_where_images_are_restricted(make_world: Any) -> None:
    def reached(image: str | None, *allowed: str) -> Any:
        world = make_world()
        world.defaults = replace(world.defaults, allowed_images=allowed)
        world.settle()
        job = world.job("prepare")
        digest = f"sha256:{SHA}"
        resolved = Resolved(run_key=SHA, data_key=SHA, model_digest=digest, dataset_digest=digest, image=image)
        document = Prepared(resolved=resolved, train_examples=9, eval_examples=1, labels=2)
        world.end(job, 0, Result(prepared=document).to_termination_message())
        # The operator may have been upgraded in the meantime; what prepare ran on is then another's default.
        world.defaults = replace(world.defaults, trainer_image="trainer:2")
        world.settle()
        return world

    assert reached("trainer:1", "registry.example.com/").live_trains, "what prepare's Job did run"
    assert reached("registry.example.com/other:1", "registry.example.com/").live_trains
    assert reached("evil.org/trainer:1").live_trains, "nothing is restricted"
    refused = reached("evil.org/trainer:1", "registry.example.com/")
    assert not refused.live_trains and refused.ready["reason"] == Reason.IMAGE_NOT_ALLOWED


def test_an_odd_metric_is_left_out_and_the_version_kept(make_world: Any) -> None:
    world = make_world()
    world.settle()
    world.prepare_ends()
    world.settle()
    world.train_ends()
    (ended_pod,) = [each for each in world.pods.values() if "train" in each["metadata"]["name"]]
    terminated = ended_pod["status"]["containerStatuses"][0]["state"]["terminated"]
    document = json.loads(terminated["message"])
    document["published"]["metrics"] = {f"f1{ESCAPE}": "1", "loss": "0.5", "accuracy": f"0.9{ESCAPE}"}
    terminated["message"] = json.dumps(document)
    before = copy.deepcopy(world.status)
    world.settle()
    assert before != world.status and world.status["artifact"]["metrics"] == {"loss": "0.5"}
