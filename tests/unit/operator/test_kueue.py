"""What Kueue says of a Job, as a user reads it, and what is never done to a Job in a queue."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luthier_api.exitcodes import ExitCode
from luthier_api.finetunejob import Attempts, FineTuneJobStatus, LastFailure, RunStatus
from luthier_api.reasons import Reason
from luthier_operator.gather.kueue import KueueReader
from luthier_operator.kube import ApiNotInstalled
from luthier_operator.model.parse import workload_view
from luthier_operator.model.views import JobView, Key, PodView, WorkloadView
from luthier_operator.plan.finetunejob import attempts, verdicts
from luthier_operator.plan.finetunejob.runs import Wanted, record_of
from luthier_operator.plan.pods import kueue
from luthier_operator.plan.verdict import Admission, Verdict
from luthier_operator.store.store import Store
from support.operator.views import train_job

pytestmark = pytest.mark.unit

KEY = Key("FineTuneJob", "team", "reviews")
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
FULL = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default, 100m more needed"
PREEMPTED = "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"


def job(**changes: Any) -> JobView:
    queued = {"suspended": True, "created_at": NOW - timedelta(hours=1), "queue": "gpus"}
    return train_job(**{**queued, **changes})


def workload(**conditions: tuple[str, str, str]) -> dict[str, Any]:
    """A Workload with conditions of (status, reason, message)."""
    rows = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": text,
            "lastTransitionTime": "2026-01-01T11:30:00Z",
        }
        for kind, (status, reason, text) in conditions.items()
    ]
    labels = {"kueue.x-k8s.io/job-uid": "job-1"}
    metadata = {"name": "job-reviews", "namespace": "team", "uid": "w-1", "resourceVersion": "1", "labels": labels}
    return {"metadata": metadata, "status": {"conditions": rows}}


def said(raw: dict[str, Any] | None, *, kueue_installed: bool = True, **changes: Any) -> Verdict:
    view = workload_view(raw) if raw else None
    return kueue.mirrored(verdicts.training(), job(**changes), view, kueue_installed=kueue_installed, now=NOW)


WAITS = {"QuotaReserved": ("False", "Pending", FULL)}
STOPPED = {"Evicted": ("True", "Preempted", PREEMPTED), "Admitted": ("False", "NoReservation", "")}

# name: (what Kueue says, reason, words that the user must read)
CASES: dict[str, tuple[dict[str, Any] | None, Reason, tuple[str, ...]]] = {
    "nothing yet": (None, Reason.QUEUED, ("gpus", "reports nothing", "Is its controller running?")),
    "no conditions yet": (workload(), Reason.QUEUED, ("gpus", "reports nothing")),
    "no room": (workload(**WAITS), Reason.QUEUED, ("gpus", FULL)),
    "preempted just now": (workload(**STOPPED), Reason.REQUEUED, (PREEMPTED, "gpus", "continues when it is admitted")),
    "preempted and no room": (workload(**STOPPED, **WAITS), Reason.REQUEUED, (PREEMPTED, FULL)),
    "no such queue": (
        workload(QuotaReserved=("False", "Inadmissible", "LocalQueue gpus doesn't exist")),
        Reason.QUEUE_NOT_FOUND,
        ("LocalQueue gpus doesn't exist", "team", "correct queueName"),
    ),
    "a stopped queue": (
        workload(QuotaReserved=("False", "Inadmissible", "LocalQueue gpus is stopped")),
        Reason.QUEUED,
        ("LocalQueue gpus is stopped",),
    ),
    "checks to be done": (
        workload(
            QuotaReserved=("True", "QuotaReserved", "Quota reserved in ClusterQueue all"),
            Admitted=("False", "NoChecks", "The workload has not all checks ready"),
        ),
        Reason.QUEUED,
        ("not all checks ready",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_why_a_job_waits_is_said_in_kueues_words(name: str) -> None:
    raw, reason, words = CASES[name]
    verdict = said(raw)
    assert (verdict.reason, verdict.phase, verdict.reconciling) == (reason, "Queued", True)
    assert not verdict.stalled and not verdict.ready
    for word in words:
        assert word in verdict.message, verdict.message
    assert verdict.message.endswith((".", "?")) and verdict.admission is not None
    assert (verdict.admission.admitted, verdict.admission.reason) == (False, reason)


def test_a_new_job_just_waits() -> None:
    verdict = said(None, created_at=NOW)
    assert (verdict.reason, verdict.message) == (Reason.QUEUED, "Waiting in queue gpus.")


def test_a_job_that_somebody_resumed_without_kueue_is_like_any_other() -> None:
    assert said(None, suspended=False) == verdicts.training()


def test_without_kueue_it_says_so() -> None:
    verdict = said(None, kueue_installed=False)
    assert verdict.reason is Reason.QUEUE_NOT_FOUND and "Install it" in verdict.message


def test_a_job_that_was_admitted_is_described_like_any_other() -> None:
    admitted = workload(
        QuotaReserved=("True", "QuotaReserved", "Quota reserved in ClusterQueue all"),
        Admitted=("True", "Admitted", "The workload is admitted"),
        Evicted=("False", "QuotaReserved", "Previously: " + PREEMPTED),
    )
    verdict = said(admitted, suspended=False)
    assert replace(verdict, admission=None) == verdicts.training()
    assert verdict.admission == Admission(True, Reason.ADMITTED, "The workload is admitted.")


def test_a_job_without_a_queue_says_nothing_of_queues() -> None:
    assert said(workload(**WAITS), queue=None) == verdicts.training()


def counted(
    view: WorkloadView,
    attempts: Attempts | None = None,
    last: LastFailure | None = None,
    **changes: Any,
) -> tuple[Attempts | None, LastFailure | None]:
    """Return what is remembered of the run's attempts after Kueue's word, given what was before."""
    run = RunStatus(name="reviews-1", spec_hash="0" * 64, stage="Train")
    before = FineTuneJobStatus(current_run=run, attempts=attempts, last_failure=last)
    record = record_of(before, Wanted("0" * 64, "reviews-1"), [job(**changes)], {"job-1": view}, NOW)
    return record.attempts, record.last_failure


def test_being_stopped_by_kueue_is_counted_once_and_not_as_a_failure() -> None:
    view = workload_view(workload(**STOPPED, **WAITS))
    attempts, last = counted(view)
    assert attempts == Attempts(failed=0, preempted=1)
    assert last and last.reason == Reason.PREEMPTED and PREEMPTED in last.message
    assert counted(view, attempts, last) == (attempts, last)
    later = replace(view, evicted_at=NOW - timedelta(minutes=15))
    again, newest = counted(later, attempts, last)
    assert again == Attempts(failed=0, preempted=2) and newest and newest.at == "2026-01-01T11:45:00Z"
    assert counted(view, again, newest) == (again, newest), "what is older is counted already"


def test_a_run_that_has_ended_is_not_counted_as_stopped() -> None:
    view, status = workload_view(workload(**STOPPED)), RunStatus(name="r", spec_hash="0" * 64, stage="Failed")
    before = FineTuneJobStatus(current_run=status)
    record = record_of(before, Wanted("0" * 64, "r"), [job(name="r-train")], {"job-1": view}, NOW)
    assert record.attempts is None and record.last_failure is None


def test_an_earlier_failure_stays_counted_beside_it() -> None:
    crash = LastFailure(reason="Crashed", message="It crashed.", at="2026-01-01T11:10:00Z")
    attempts, last = counted(workload_view(workload(**STOPPED)), Attempts(failed=2), crash)
    assert attempts == Attempts(failed=2, preempted=1) and last and last.reason == Reason.PREEMPTED


def test_a_pod_that_went_with_its_turn_is_not_counted_beside_it() -> None:
    pod = PodView(
        name="reviews-1-train-x",
        owner_uid="job-1",
        phase="Failed",
        created_at=NOW - timedelta(minutes=40),
        deleting=True,
        finished_at=NOW - timedelta(minutes=29, seconds=51),
        exit_code=ExitCode.PREEMPTED,
    )
    known, last = counted(workload_view(workload(**STOPPED)))
    own = job(pods=(pod,))
    assert attempts.attempts([own], 0, known, last) == Attempts(preempted=1)
    assert attempts.latest(own, last) == last
    drained = replace(pod, disruption="Eviction API: evicting", disruption_reason="EvictionByEvictionAPI")
    assert attempts.attempts([job(pods=(drained,))], 0, known, last) == Attempts(preempted=2)


class Server:
    """An API server that answers for Kueue, or does not know it."""

    def __init__(self, *workloads: dict[str, Any], installed: bool = True) -> None:
        self.workloads, self.installed, self.asked = list(workloads), installed, []

    async def preferred_version(self, group: str) -> str:
        if not self.installed:
            raise ApiNotInstalled("404 page not found")
        return f"{group}/v1beta9"

    async def list_by_label(self, version: str, kind: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        self.asked.append((version, kind, namespace, selector))
        return self.workloads


def read(server: Server, store: Store, *jobs: JobView) -> Any:
    return asyncio.run(KueueReader(server, store, 15.0).read(jobs, NOW))  # type: ignore[arg-type]


def test_what_the_watch_tells_is_enough() -> None:
    store, server = Store(), Server()
    store.put("Workload", workload(**WAITS))
    queues = read(server, store, job())
    assert queues.workloads["job-1"].message == FULL and queues.again_s is None and server.asked == []


def test_kueue_is_given_time_before_it_is_asked_for() -> None:
    server = Server()
    queues = read(server, Store(), job(created_at=NOW - timedelta(seconds=1)))
    assert server.asked == [] and 0 < queues.sooner(600.0) <= 2 and queues.kueue_installed


def test_where_the_watch_is_silent_kueue_is_asked_now_and_then_in_its_preferred_version() -> None:
    server = Server(workload(**WAITS))
    queues = read(server, Store(), job())
    selector = "kueue.x-k8s.io/job-uid=job-1"
    assert server.asked == [("kueue.x-k8s.io/v1beta9", "Workload", "team", selector)]
    assert queues.workloads["job-1"].message == FULL and queues.sooner(None) == 15.0


def test_kueue_that_is_not_installed_may_come_later() -> None:
    queues = read(Server(installed=False), Store(), job())
    assert not queues.kueue_installed and queues.sooner(None) == 15.0


def test_jobs_outside_queues_cost_nothing() -> None:
    server = Server(installed=False)
    queues = read(server, Store(), job(queue=None), job(outcome="Complete"))
    assert queues.workloads == {} and queues.kueue_installed and queues.sooner(None) is None
