"""The status of a BatchPrediction: conditions as kstatus defines them, progress, and Events on transitions."""

from datetime import datetime

from luthier_api.base import decimal_text
from luthier_api.batchprediction import BatchPredictionStatus, Shards
from luthier_api.conditions import find_condition, merge_conditions
from luthier_api.documents import ProgressDocument
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.model.actions import EventNote
from luthier_operator.model.timestamps import duration, rfc3339
from luthier_operator.model.views import Meta
from luthier_operator.plan.verdict import Verdict

_NORMAL = {
    Reason.PREDICTING,
    Reason.PREDICTED,
    Reason.REUSED,
    Reason.SUSPENDED,
    Reason.WAITING_FOR_MODEL,
    Reason.WAITING_FOR_RUN,
    Reason.QUEUED,
}


def with_progress(record: BatchPredictionStatus, progress: ProgressDocument | None) -> BatchPredictionStatus:
    """Return a running record with what a worker says; without an answer, what was said before.

    Speed and time left change with every answer; they are taken when a shard is finished.
    """
    if progress is None or not progress.total_steps:
        return record
    shards = Shards(done=progress.step, total=progress.total_steps)
    if record.shards == shards and record.texts_per_second is not None:
        return record
    speed, eta_s = progress.examples_per_second, progress.eta_seconds
    return record.model_copy(
        update={
            "rows": progress.rows if progress.rows is not None else record.rows,
            "shards": shards,
            "percent": 100 * progress.step // progress.total_steps,
            "texts_per_second": decimal_text(speed, 3) if speed is not None else None,
            "eta": duration(eta_s) if eta_s is not None else None,
            "eta_seconds": round(eta_s) if eta_s is not None else None,
        }
    )


def with_conditions(
    meta: Meta, record: BatchPredictionStatus, verdict: Verdict, now: datetime
) -> BatchPredictionStatus:
    """Return the whole new status."""
    rows = [
        (ConditionType.READY, verdict.ready, verdict.reason, verdict.message),
        (ConditionType.RECONCILING, verdict.reconciling, verdict.reason, verdict.message),
        (ConditionType.STALLED, verdict.stalled, verdict.reason, verdict.message),
    ]
    if (queue := verdict.admission) is not None:
        rows.append((ConditionType.ADMITTED, queue.admitted, queue.reason, queue.message))
    only_when_true = (ConditionType.RECONCILING, ConditionType.STALLED)
    said = [row for row in rows if row[1] or row[0] not in only_when_true]
    conditions = merge_conditions(record.conditions, said, generation=meta.generation, now=rfc3339(now))
    update = {"observed_generation": meta.generation, "phase": verdict.phase, "conditions": conditions}
    return record.model_copy(update=update)


def transitions(before: BatchPredictionStatus, after: BatchPredictionStatus) -> tuple[EventNote, ...]:
    """Return an Event if the reason, or the run that it is about, has changed."""
    new = find_condition(after.conditions, ConditionType.READY)
    old = find_condition(before.conditions, ConditionType.READY)
    assert new is not None
    runs = [status.run.name if status.run else None for status in (before, after)]
    if old and old.reason == new.reason and runs[0] == runs[1]:
        return ()
    return (EventNote(Reason(new.reason), new.message, warning=new.reason not in _NORMAL),)
