"""That a training cannot store its checkpoints, or waits for storage: a condition while it is so, and one Event.

The pod reports it in its progress. Otherwise all looks well, so this is the only sign of what is at stake.
"""

from luthier_api.conditions import find_condition
from luthier_api.documents import ProgressDocument
from luthier_api.finetunejob import FineTuneJobStatus
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.model.actions import EventNote
from luthier_operator.plan.pods.diagnosis import clip


def rows(
    before: FineTuneJobStatus, progress: ProgressDocument | None, training: bool
) -> list[tuple[ConditionType, bool, Reason, str]]:
    """Return the condition, if it holds: by what the pod says now, or while it says nothing, by what it said last."""
    message = ""
    if training and progress is None:
        kept = find_condition(before.conditions, ConditionType.STORAGE_FAILING)
        message = kept.message if kept else ""
    elif training and progress and progress.storage_failure:
        message = f"{clip(progress.storage_failure)} {_at_stake(before, progress)}"
    return [(ConditionType.STORAGE_FAILING, True, Reason.STORAGE_FAILING, message)] if message else []


def begun(before: FineTuneJobStatus, after: FineTuneJobStatus) -> tuple[EventNote, ...]:
    """Return the Event, when the condition is new."""
    new = find_condition(after.conditions, ConditionType.STORAGE_FAILING)
    if new is None or find_condition(before.conditions, ConditionType.STORAGE_FAILING):
        return ()
    return (EventNote(Reason.STORAGE_FAILING, new.message, warning=True),)


def _at_stake(before: FineTuneJobStatus, progress: ProgressDocument) -> str:
    stored = progress.checkpoint_step or (before.checkpoint.step if before.checkpoint else None)
    resumes = f"continues from step {stored}" if stored else "starts over"
    return f"It is tried again; if the pod is lost before that succeeds, the next one {resumes}."
