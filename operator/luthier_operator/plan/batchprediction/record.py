"""What the Job of a run has come to: from the Job, its pods and what the status remembers, to one status.

The status then remembers the outcome, so that a Job that is deleted after its time to live is never made again.
"""

from datetime import datetime

from luthier_api.batchprediction import BatchPredictionSpec, BatchPredictionStatus, BatchRun, Shards
from luthier_api.documents import Predicted
from luthier_api.exitcodes import OUTCOMES, ExitCode
from luthier_api.finetunejob import LastFailure
from luthier_api.reasons import Reason
from luthier_operator.model.timestamps import EARLIEST, rfc3339
from luthier_operator.model.views import JobView
from luthier_operator.plan.pods import failures

# What is said of trainings in other words.
_IN_OTHER_WORDS = {
    failures.CONTINUES: "The shards that are missing are computed by another pod; this does not count towards "
    "backoffLimit.",
    OUTCOMES[ExitCode.KILLED].hint: "Raise runtime.resources.limits.memory, or lower shardRows or maxBatchTokens.",
    "raise resources.limits.memory": "raise runtime.resources.limits.memory",
}
_DEADLINE = (
    "The predictions took longer than activeDeadlineSeconds allows and were stopped; the parts that are stored stay. "
    "Raise activeDeadlineSeconds or parallelism: what is missing is then computed."
)


def record_of(
    before: BatchPredictionStatus, spec: BatchPredictionSpec, run: str, job: JobView | None, now: datetime
) -> tuple[BatchPredictionStatus, bool]:
    """Return the status of a run as far as it is known, and whether its result is lost."""
    record = before if before.run and before.run.name == run else _fresh(before)
    if job is None or (record.run and record.run.state != "Running"):
        return record, False
    if record.run is None:  # made by a plan that was cut off before it wrote the status
        record = _with(record, run=BatchRun(name=run, state="Running", started_at=rfc3339(job.created_at or now)))
    assert record.run
    # Kubernetes forgets the failures of a Job that was deleted and made again.
    record = _with(record, failed_attempts=max(record.failed_attempts, job.failed))
    if job.outcome == "Failed":
        return _ended(record, "Failed", now, last_failure=_failure_of(job)), False
    record = _with(record, last_failure=_latest(job) or record.last_failure)
    if job.outcome is None:
        return record, False
    return _after_success(record, spec, job, now)


def _after_success(
    record: BatchPredictionStatus, spec: BatchPredictionSpec, job: JobView, now: datetime
) -> tuple[BatchPredictionStatus, bool]:
    pods = [pod for pod in job.pods if pod.phase == "Succeeded"]
    results = [result.predicted for pod in pods if (result := failures.result_of(pod)) and result.predicted]
    if pods and not results:
        return _ended(record, "Failed", now, last_failure=failures.no_result(pods[0])), False
    complete = [each for each in results if each.complete]
    if not complete:
        return record, True
    found = next((each for each in complete if _is_possible(each, spec)), None)
    if found is None:
        return _ended(record, "Failed", now, last_failure=failures.result_of_another_run(pods[0])), False
    return (
        _ended(
            record,
            "Succeeded",
            now,
            output=found.output,
            rows=found.rows,
            errors=found.errors,
            shards=Shards(done=found.shards, total=found.shards),
            percent=100,
            reused=found.reused or None,
            last_failure=None,
        ),
        False,
    )


def _is_possible(predicted: Predicted, spec: BatchPredictionSpec) -> bool:
    """Whether a result can be true: a pod may be broken or hostile, and what it says goes into the status."""
    root = spec.output.uri.rstrip("/") + "/predictions-"
    return predicted.output.startswith(root) and predicted.output.isprintable()


def _latest(job: JobView) -> LastFailure | None:
    """Return why the worker that failed last did."""
    failed = [pod for pod in job.pods if pod.phase == "Failed"]
    newest = max(failed, key=lambda pod: (failures.ended_at(pod) or EARLIEST, pod.name), default=None)
    return _reworded(failures.failure_of(newest)) if newest else None


def _failure_of(job: JobView) -> LastFailure:
    failure = failures.job_failure(job)
    if failure.reason == Reason.DEADLINE_EXCEEDED:
        return failure.model_copy(update={"message": _DEADLINE})
    return _reworded(failure)


def _reworded(failure: LastFailure) -> LastFailure:
    text = failure.message
    for words, others in _IN_OTHER_WORDS.items():
        text = text.replace(words, others)
    return failure.model_copy(update={"message": text})


def _fresh(before: BatchPredictionStatus) -> BatchPredictionStatus:
    """Return a status that remembers nothing of an earlier run but how it was said."""
    kept = {"observed_generation", "phase", "conditions"}
    return BatchPredictionStatus(**{name: getattr(before, name) for name in kept})


def _ended(record: BatchPredictionStatus, state: str, now: datetime, **more: object) -> BatchPredictionStatus:
    assert record.run
    run = record.run.model_copy(update={"state": state, "finished_at": rfc3339(now)})
    still = dict.fromkeys(("texts_per_second", "eta", "eta_seconds"))
    return _with(record, run=run, **still, **more)


def _with(record: BatchPredictionStatus, **changes: object) -> BatchPredictionStatus:
    return record.model_copy(update=changes)
