"""The status of a FineTuneJob: conditions as kstatus defines them, what the run has come to, and Events on transitions.

`Reconciling` and `Stalled` are there only while they are true, and `Ready` always, with the sentence that explains it.
What the sentence says is up to `verdicts`.
"""

from collections.abc import Sequence
from datetime import datetime

from luthier_api.base import decimal_text
from luthier_api.conditions import find_condition, merge_conditions
from luthier_api.documents import ProgressDocument
from luthier_api.finetunejob import ArtifactStatus, CheckpointStatus, FineTuneJobStatus, Progress, VersionStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_api.training import Output
from luthier_operator.model.actions import EventNote
from luthier_operator.model.timestamps import duration, rfc3339, rfc3339_if_known
from luthier_operator.model.views import JobView, Meta
from luthier_operator.plan.finetunejob import storage_failing, stuck
from luthier_operator.plan.finetunejob.runs import RunRecord
from luthier_operator.plan.verdict import Verdict


def status_of(
    meta: Meta,
    before: FineTuneJobStatus,
    record: RunRecord,
    verdict: Verdict,
    progress: ProgressDocument | None,
    output: Output | None,
    now: datetime,
) -> FineTuneJobStatus:
    """Return the whole new status; `output` is where the run's checkpoints lie, if that is what the spec says now."""
    training = record.run is not None and record.run.status.stage == "Train"
    same_run = bool(before.current_run and record.run and before.current_run.name == record.run.name)
    kept = before.progress if same_run else None
    shown = _shown(progress, kept, now) if training else None
    message = verdict.message
    # Time left changes with every answer of the pod; the sentence, as the figures, only when a step is finished.
    if verdict.reason is Reason.TRAINING and shown and (progress is None or shown == kept):
        ready = find_condition(before.conditions, ConditionType.READY)
        message = ready.message if ready and ready.reason == Reason.TRAINING else message
    return FineTuneJobStatus(
        observed_generation=meta.generation,
        phase=verdict.phase,
        conditions=merge_conditions(
            before.conditions,
            [*_conditions(verdict, message, record), *storage_failing.rows(before, progress, training and same_run)],
            generation=meta.generation,
            now=rfc3339(now),
        ),
        current_run=record.run.status if record.run else None,
        progress=shown,
        checkpoint=_checkpoint(record, output, progress, before.checkpoint if same_run else None),
        artifact=_artifact(record, before.artifact),
        versions=[_in_list(version) for version in record.versions],
        attempts=record.attempts,
        last_failure=record.last_failure,
        warnings=list(record.warnings),
        usage=record.usage,
    )


def with_conditions(meta: Meta, before: FineTuneJobStatus, verdict: Verdict, now: datetime) -> FineTuneJobStatus:
    """Return the status with new conditions and nothing else changed, for a resource that cannot be acted on."""
    rows = _conditions(verdict, verdict.message, RunRecord(None, ()))
    conditions = merge_conditions(before.conditions, rows, generation=meta.generation, now=rfc3339(now))
    update = {"observed_generation": meta.generation, "phase": verdict.phase, "conditions": conditions}
    return before.model_copy(update=update)


def _conditions(verdict: Verdict, message: str, record: RunRecord) -> list[tuple[ConditionType, bool, Reason, str]]:
    published = verdict.ready or verdict.reason is Reason.GATE_FAILED
    prepared = published or (record.run is not None and record.run.status.run_key is not None)
    rows = [
        (ConditionType.READY, verdict.ready, verdict.reason, message),
        (ConditionType.RECONCILING, verdict.reconciling, verdict.reason, message),
        (ConditionType.STALLED, verdict.stalled, verdict.reason, message),
        (ConditionType.PREPARED, prepared, verdict.reason, _PREPARED[prepared]),
        (ConditionType.PUBLISHED, published, verdict.reason, _PUBLISHED[published]),
    ]
    if (queue := verdict.admission) is not None:
        rows.append((ConditionType.ADMITTED, queue.admitted, queue.reason, queue.message))
    only_when_true = (ConditionType.RECONCILING, ConditionType.STALLED)
    return [row for row in rows if row[1] or row[0] not in only_when_true]


_PREPARED = {True: "The inputs are known and the data passed its checks.", False: "The inputs are not known yet."}
_PUBLISHED = {True: "A version answers this spec.", False: "No version answers this spec yet."}


# What one version is compared with another by: the first of these that there is.
_HEADLINES = ("eval_f1_macro", "eval_f1_entities", "eval_rmse", "eval_loss")


def _in_list(version: VersionStatus) -> VersionStatus:
    """Return a version as the list has it: all metrics would fill the screen once for each version."""
    shown = next((name for name in _HEADLINES if name in version.metrics), None)
    return version.model_copy(update={"metrics": {shown: version.metrics[shown]} if shown else {}})


def _artifact(record: RunRecord, before: ArtifactStatus | None) -> ArtifactStatus | None:
    """Return the version chosen last: that of the spec, or until it has one, that of the spec before.

    It alone has all metrics, as long as it is the one: a version that an edit comes back to has what the list has.
    """
    if not record.versions:
        return None
    artifact = ArtifactStatus(**record.versions[0].model_dump(include=set(ArtifactStatus.model_fields)))
    same = before is not None and (before.version, before.digest) == (artifact.version, artifact.digest)
    if before and same and len(before.metrics) > len(artifact.metrics):
        return artifact.model_copy(update={"metrics": before.metrics})
    return artifact


def _checkpoint(
    record: RunRecord, output: Output | None, progress: ProgressDocument | None, kept: CheckpointStatus | None
) -> CheckpointStatus | None:
    """Return what the run would continue from. After success none is left; a failed run keeps it for a retry."""
    run = record.run.status if record.run else None
    if run is None or not (run.stage in ("Train", "Failed") or (run.stage == "Prepare" and run.given_up)):
        return None
    if progress is None or output is None or run.run_key is None:
        return kept
    steps = [step for step in (progress.checkpoint_step, progress.resumed_from_step) if step is not None]
    if not steps:
        return kept
    uri = output.checkpoint_uri(run.run_key, max(steps))
    return CheckpointStatus(step=max(steps), uri=uri, resumed_from=progress.resumed_from_step)


def _shown(document: ProgressDocument | None, kept: Progress | None, now: datetime) -> Progress | None:
    """Return the progress to show: what is shown already, unless more has changed than speed and time left."""
    changed = {"changed_at": rfc3339_if_known(stuck.changed_at(kept, document, now))}
    if document is None:
        return kept and kept.model_copy(update=changed)
    new = progress_of(document).model_copy(update=changed)
    return kept if kept and kept.changed_at and figures(kept) == figures(new) else new


def figures(progress: Progress) -> Progress:
    """Return the progress without what changes although no step is finished: speed and time left."""
    unsteady = ("eta", "eta_seconds", "examples_per_second", "tokens_per_second", "changed_at")
    return progress.model_copy(update=dict.fromkeys(unsteady))


def progress_of(document: ProgressDocument) -> Progress:
    """Return what the status shows of a pod's progress."""
    done = min(100, 100 * document.step // document.total_steps) if document.total_steps else 0
    speed, tokens = document.examples_per_second, document.tokens_per_second
    return Progress(
        stage=document.stage,
        percent=done,
        step=document.step,
        total_steps=document.total_steps,
        epoch=decimal_text(document.epoch, 3),
        eta=duration(document.eta_seconds) if document.eta_seconds is not None else None,
        eta_seconds=round(document.eta_seconds) if document.eta_seconds is not None else None,
        examples_per_second=decimal_text(speed, 3) if speed is not None else None,
        tokens_per_second=decimal_text(tokens, 3) if tokens is not None else None,
        gpu_memory_bytes=document.gpu_memory_bytes,
        metrics={name: decimal_text(value, 4) for name, value in document.metrics.items()},
    )


def replaced(jobs: Sequence[JobView]) -> tuple[EventNote, ...]:
    """Return the Events about runs that an edit stops."""
    runs = dict.fromkeys(job.run for job in jobs)
    return tuple(EventNote(Reason.REPLACED, f"Run {run} is stopped because the spec was edited.") for run in runs)


def transitions(before: FineTuneJobStatus, after: FineTuneJobStatus) -> tuple[EventNote, ...]:
    """Return an Event if the reason, or the version that answers, has changed, and those of what else is new."""
    new = find_condition(after.conditions, ConditionType.READY)
    assert new is not None
    old = find_condition(before.conditions, ConditionType.READY)
    notes: tuple[EventNote, ...] = ()
    if after.warnings and after.warnings != before.warnings:
        notes = (EventNote(Reason.PREPARED_WITH_WARNINGS, " ".join(after.warnings), warning=True),)
    notes += storage_failing.begun(before, after)
    versions = [status.artifact.version if status.artifact else None for status in (before, after)]
    if old and old.reason == new.reason and (versions[0] == versions[1] or new.status != "True"):
        return notes
    return (*notes, EventNote(Reason(new.reason), new.message, warning=new.reason not in _NORMAL))


_NORMAL = {
    Reason.PREPARING,
    Reason.TRAINING,
    Reason.SUSPENDED,
    Reason.PUBLISHED,
    Reason.REUSED,
    Reason.REPLACED,
    Reason.WAITING_FOR_RUN,
    Reason.DELETING,
    Reason.QUEUED,
}
