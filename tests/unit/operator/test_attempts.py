"""What is counted of a run, each thing once: failures, disruptions, GPU time; and how long it goes without a step."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luthier_api.finetunejob import Attempts, FineTuneJobStatus, LastFailure, RunStatus, Usage
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import JobView, PodView
from luthier_operator.plan.finetunejob import stuck
from luthier_operator.plan.finetunejob.attempts import attempts, latest
from luthier_operator.plan.finetunejob.usage import usage
from support.operator.views import train_job

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def job(*pods: PodView, **changes: Any) -> JobView:
    return train_job(pods=pods, **changes)


def pod(name: str, ended: float, **changes: Any) -> PodView:
    plain = PodView(
        name=name,
        owner_uid="job-1",
        phase="Failed",
        created_at=START,
        started_at=START,
        finished_at=at(ended),
        exit_code=81,
        gpus=4,
    )
    return replace(plain, **changes)


def last(name: str, ended: float) -> LastFailure:
    return LastFailure(reason="Preempted", message="It was.", pod=name, at=rfc3339(at(ended)))


def test_a_disruption_is_counted_when_it_ended_after_the_one_that_is_remembered() -> None:
    known = Attempts(preempted=1)
    older, same, newer = pod("a", 10), pod("b", 20), pod("c", 30)
    assert attempts([job(newer, same, older)], 0, known, last("b", 20)) == Attempts(preempted=2)
    assert attempts([job(same, older)], 0, known, last("b", 20)) == known


def test_of_pods_that_ended_in_one_second_each_is_counted_once() -> None:
    pods = (pod("a", 10), pod("b", 10))
    assert attempts([job(*pods)], 0, Attempts(preempted=1), last("a", 10)) == Attempts(preempted=2)
    assert attempts([job(*pods)], 0, Attempts(preempted=2), last("b", 10)) == Attempts(preempted=2)
    newest = latest(job(*pods), last("a", 10))
    assert newest and newest.pod == "b"


def test_failures_stay_counted_when_the_job_that_had_them_is_gone() -> None:
    assert attempts([], 0, Attempts(failed=2, preempted=1), last("a", 10)) == Attempts(failed=2, preempted=1)
    assert attempts([job(failed=1)], 2, Attempts(failed=2), None) == Attempts(failed=3)


def test_the_pods_of_a_suspended_job_were_stopped_by_the_user_and_count_for_nothing() -> None:
    assert attempts([job(pod("a", 10), suspended=True)], 0, None, None) is None
    assert attempts([job(pod("a", 10))], 0, None, None) == Attempts(preempted=1)


def status(known: Usage | None = None) -> FineTuneJobStatus:
    return FineTuneJobStatus(current_run=RunStatus(name="reviews-1", spec_hash="0" * 64, stage="Train"), usage=known)


def test_the_gpu_time_of_each_pod_is_counted_once() -> None:
    two = job(pod("b", 30), pod("a", 10))
    first = usage(status(), [two])
    assert first == Usage(gpu_seconds=4 * 40, counted_until=rfc3339(at(30)))
    assert usage(status(first), [two]) == first
    third = usage(status(first), [job(pod("c", 31), *two.pods)])
    assert third and third.gpu_seconds == 4 * 71


def test_a_pod_that_never_started_held_no_gpu() -> None:
    found = usage(status(), [job(pod("a", 10, started_at=None))])
    assert found == Usage(gpu_seconds=0, counted_until=rfc3339(at(10)))


@pytest.mark.parametrize(
    ("started", "changed", "left"),
    [
        pytest.param(0, 50, 50, id="since the last step"),
        pytest.param(90, 50, 90, id="since the pod started, if that is later"),
        pytest.param(90, None, 90, id="since the pod started, if no step is known"),
    ],
)
def test_a_training_has_its_deadline_from_its_last_step_or_its_start(
    started: float, changed: float | None, left: float
) -> None:
    running = pod("a", 0, phase="Running", started_at=at(started), finished_at=None)
    since = None if changed is None else at(changed)
    assert stuck.seconds_left([running], since, 100, at(100)) == left


def test_pods_that_do_not_run_or_are_being_stopped_have_no_deadline() -> None:
    running = pod("a", 0, phase="Running", finished_at=None)
    for view in (replace(running, phase="Pending"), replace(running, deleting=True), replace(running, started_at=None)):
        assert stuck.seconds_left([view], None, 100, at(500)) is None
