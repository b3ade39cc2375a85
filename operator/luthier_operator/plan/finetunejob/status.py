"""What a FineTuneJob's status says: the sentence, the conditions as kstatus defines them, the Events on transitions.

The policies decide, and choose one of the verdicts here; this module words it. `Reconciling` and `Stalled` are there
only while they are true, and `Ready` always, with the one sentence that tells the story.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier_api.base import decimal_text
from luthier_api.conditions import find_condition, merge_conditions
from luthier_api.documents import ProgressDocument, Published
from luthier_api.finetunejob import (
    ArtifactStatus,
    CheckpointStatus,
    FineTuneJobStatus,
    LastFailure,
    Progress,
    VersionStatus,
)
from luthier_api.reasons import ConditionType, Reason
from luthier_api.training import Output
from luthier_operator.model.actions import EventNote
from luthier_operator.model.views import JobView, Meta, Refusal
from luthier_operator.plan.finetunejob import stuck
from luthier_operator.plan.finetunejob.runs import Memory
from luthier_operator.plan.pods.diagnosis import Trouble, clip


@dataclass(frozen=True)
class Admission:
    """Whether the queue has let the Job in that the run waits for."""

    admitted: bool
    reason: Reason
    message: str


@dataclass(frozen=True)
class Verdict:
    """How it stands with a resource."""

    phase: str
    reason: Reason
    message: str
    ready: bool = False
    stalled: bool = False
    going_on: bool = False
    """Whether work goes on, or waits for something that may come by itself."""
    admission: Admission | None = None
    """Of a run that has to be let in by a queue."""


_RETRY = "To try the same spec again, set the annotation luthier.dev/retry to any new value."


def answered(before: FineTuneJobStatus, version: VersionStatus, published: Published | None) -> Verdict:
    """A version answers the spec; how it came about is said once and then kept."""
    if not version.promotable:
        why = version.message or "a gate was missed."
        text = (
            f"Version {version.version} is published but not promotable: {why} Improve the data or the hyperparameters"
            ", or change evaluation.gates; what serves the version before goes on."
        )
        return Verdict("Failed", Reason.GATE_FAILED, text, stalled=True)
    ready = find_condition(before.conditions, ConditionType.READY)
    same = before.artifact is not None and before.artifact.version == version.version
    if ready and ready.status == "True" and same and published is None:
        return Verdict("Succeeded", Reason(ready.reason), ready.message, ready=True)
    if published and not published.reused:
        return Verdict("Succeeded", Reason.PUBLISHED, f"Version {version.version} is published.", ready=True)
    text = f"Version {version.version}, which an earlier run made, answers this spec; nothing was trained."
    return Verdict("Succeeded", Reason.REUSED, text, ready=True)


def failed(failure: LastFailure | None) -> Verdict:
    """The run failed, and trying again would not help."""
    if failure is None:
        return Verdict("Failed", Reason.CRASHED, f"The run failed. {_RETRY}", stalled=True)
    return Verdict("Failed", Reason(failure.reason), f"{failure.message} {_RETRY}", stalled=True)


def starting_over(memory: Memory) -> Verdict:
    """A training was given up and begins again, or has failed once too often."""
    if memory.run and memory.run.status.stage == "Failed":
        return failed(memory.last_failure)
    text = "The training begins again from its newest checkpoint."
    return _under_way("Training", Reason.TRAINING, text, None, memory.last_failure)


def image_not_allowed(refusal: str) -> Verdict:
    """The operator's list does not allow the image that the spec names."""
    return Verdict("Failed", Reason.IMAGE_NOT_ALLOWED, refusal, stalled=True)


def suspended() -> Verdict:
    """The user asked for rest."""
    return Verdict("Suspended", Reason.SUSPENDED, "The run is suspended; set suspend to false to go on.")


def waiting_for_run(run: str) -> Verdict:
    """Another run of the same resource still holds, or may still hold, a GPU."""
    text = f"Waiting for run {run} of an earlier spec to end."
    return Verdict("Waiting", Reason.WAITING_FOR_RUN, text, going_on=True)


def name_taken() -> Verdict:
    """A Job of a deleted resource of the same name is still being removed."""
    text = "Waiting for the Job of an earlier FineTuneJob of this name to be removed."
    return Verdict("Waiting", Reason.WAITING_FOR_RUN, text, going_on=True)


def preparing(trouble: Trouble | None = None, failure: LastFailure | None = None) -> Verdict:
    """The CPU stage goes on."""
    text = "Inputs are looked up and the data is checked; no GPU is asked for yet."
    return _under_way("Preparing", Reason.PREPARING, text, trouble, failure)


def training(
    trouble: Trouble | None = None, failure: LastFailure | None = None, progress: ProgressDocument | None = None
) -> Verdict:
    """The training stage goes on."""
    text = "The training pod is starting."
    if progress is not None:
        steps = f": step {progress.step} of {progress.total_steps}" if progress.total_steps else ""
        text = f"{progress.stage}{steps}."
    return _under_way("Training", Reason.TRAINING, text, trouble, failure)


def _under_way(phase: str, reason: Reason, text: str, trouble: Trouble | None, failure: LastFailure | None) -> Verdict:
    if trouble:
        return Verdict(phase, trouble.reason, trouble.message, going_on=True)
    if failure:
        return Verdict(phase, Reason.RETRYING, f"Trying again after: {failure.message}", going_on=True)
    return Verdict(phase, reason, text, going_on=True)


def status(
    meta: Meta,
    before: FineTuneJobStatus,
    memory: Memory,
    verdict: Verdict,
    progress: ProgressDocument | None,
    output: Output | None,
    now: str,
) -> FineTuneJobStatus:
    """Return the whole new status; `output` is where the run's checkpoints lie, if that is what the spec says now."""
    training_goes_on = memory.run is not None and memory.run.status.stage == "Train"
    same_run = before.current_run and memory.run and before.current_run.name == memory.run.name
    kept = before.progress if same_run else None
    shown = _shown(progress, kept, now) if training_goes_on else None
    message = verdict.message
    if verdict.reason is Reason.TRAINING and progress is None and shown:
        ready = find_condition(before.conditions, ConditionType.READY)
        message = ready.message if ready and ready.reason == Reason.TRAINING else message
    return FineTuneJobStatus(
        observed_generation=meta.generation,
        phase=verdict.phase,
        conditions=merge_conditions(
            before.conditions,
            _conditions(verdict, message, memory),
            generation=meta.generation,
            now=now,
        ),
        current_run=memory.run.status if memory.run else None,
        progress=shown,
        checkpoint=_checkpoint(memory, output, progress, before.checkpoint if same_run else None),
        artifact=_artifact(memory),
        versions=list(memory.versions),
        attempts=memory.attempts,
        last_failure=memory.last_failure,
        usage=memory.usage,
    )


def spec_unreadable(why: str) -> Verdict:
    """This version of the operator cannot read the spec."""
    return Verdict("Failed", Reason.INVALID_SPEC, why, stalled=True)


def refused(refusal: Refusal) -> Verdict:
    """The cluster does not accept what the run needs."""
    text = f"The cluster refuses what the run needs: {clip(refusal.message)}"
    if refusal.quota_exceeded:
        # Room may come without an edit, and it is tried again.
        return Verdict("Waiting", Reason.QUOTA_EXCEEDED, text, going_on=True)
    return Verdict("Failed", Reason.INVALID_SPEC, text, stalled=True)


def only_saying(meta: Meta, before: FineTuneJobStatus, verdict: Verdict, now: str) -> FineTuneJobStatus:
    """Return the status of a resource that cannot be acted on: it says why, and forgets nothing."""
    conditions = merge_conditions(
        before.conditions, _conditions(verdict, verdict.message, Memory(None, ())), generation=meta.generation, now=now
    )
    update = {"observed_generation": meta.generation, "phase": verdict.phase, "conditions": conditions}
    return before.model_copy(update=update)


def _conditions(verdict: Verdict, message: str, memory: Memory) -> list[tuple[ConditionType, bool, Reason, str]]:
    published = verdict.ready or verdict.reason is Reason.GATE_FAILED
    prepared = published or (memory.run is not None and memory.run.status.run_key is not None)
    rows = [
        (ConditionType.READY, verdict.ready, verdict.reason, message),
        (ConditionType.RECONCILING, verdict.going_on, verdict.reason, message),
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


def _artifact(memory: Memory) -> ArtifactStatus | None:
    """Return the version chosen last: that of the present spec, or until it has one, of the spec before."""
    if not memory.versions:
        return None
    fields = memory.versions[0].model_dump(include=set(ArtifactStatus.model_fields))
    return ArtifactStatus(**fields)


def _checkpoint(
    memory: Memory, output: Output | None, progress: ProgressDocument | None, kept: CheckpointStatus | None
) -> CheckpointStatus | None:
    """Return what the run would go on from. What ended well has none left; what failed keeps it for a retry."""
    run = memory.run.status if memory.run else None
    if run is None or not (run.stage in ("Train", "Failed") or (run.stage == "Prepare" and run.given_up)):
        return None
    if progress is None or output is None or run.run_key is None:
        return kept
    steps = [step for step in (progress.checkpoint_step, progress.resumed_from_step) if step is not None]
    if not steps:
        return kept
    uri = output.checkpoint_uri(run.run_key, max(steps))
    return CheckpointStatus(step=max(steps), uri=uri, resumed_from=progress.resumed_from_step)


def _shown(document: ProgressDocument | None, kept: Progress | None, now: str) -> Progress | None:
    """Return the progress to show: that shown already, unless more has changed than speed and time left."""
    changed = {"changed_at": stuck.changed_at(kept, document, now)}
    if document is None:
        return kept and kept.model_copy(update=changed)
    new = progress_of(document).model_copy(update=changed)
    return kept if kept and kept.changed_at and figures(kept) == figures(new) else new


def figures(progress: Progress) -> Progress:
    """Return the figures that stand still when the training does."""
    unsteady = ("eta_seconds", "examples_per_second", "tokens_per_second", "changed_at")
    return progress.model_copy(update=dict.fromkeys(unsteady))


def progress_of(document: ProgressDocument) -> Progress:
    """Return what is shown of a pod's progress."""
    done = min(100, 100 * document.step // document.total_steps) if document.total_steps else 0
    speed, tokens = document.examples_per_second, document.tokens_per_second
    return Progress(
        stage=document.stage,
        percent=done,
        step=document.step,
        total_steps=document.total_steps,
        epoch=decimal_text(document.epoch, 3),
        eta_seconds=round(document.eta_seconds) if document.eta_seconds is not None else None,
        examples_per_second=decimal_text(speed, 3) if speed is not None else None,
        tokens_per_second=decimal_text(tokens, 3) if tokens is not None else None,
        gpu_memory_bytes=document.gpu_memory_bytes,
        metrics={name: decimal_text(value, 4) for name, value in document.metrics.items()},
    )


def replaced(jobs: Sequence[JobView]) -> tuple[EventNote, ...]:
    """Return the Events for runs that an edit stops."""
    runs = dict.fromkeys(job.run for job in jobs)
    return tuple(EventNote(Reason.REPLACED, f"Run {run} is stopped, because the spec was edited.") for run in runs)


def transitions(before: FineTuneJobStatus, after: FineTuneJobStatus) -> tuple[EventNote, ...]:
    """Return an Event if the reason, or the version that answers, has changed."""
    old = find_condition(before.conditions, ConditionType.READY)
    new = find_condition(after.conditions, ConditionType.READY)
    assert new is not None
    versions = [status.artifact.version if status.artifact else None for status in (before, after)]
    if old and old.reason == new.reason and (versions[0] == versions[1] or new.status != "True"):
        return ()
    return (EventNote(Reason(new.reason), new.message, warning=new.reason not in _NORMAL),)


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
