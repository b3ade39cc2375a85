"""What to do for a FineTuneJob that is being deleted, and the finalizer that holds it until that is done.

    deletionPolicy Retain   nothing: the garbage collector stops what runs, and the versions stay
    deletionPolicy Delete   hold the resource from before its first Job on; then, once it is deleted:
                            stop its Jobs -> wait until they are gone -> one Job removes the versions -> let go

The policy may be edited at any time, also while the resource waits: Retain lets it go at once. Nothing is held that
cannot be said why, and every sentence that says so names that way out.
Pure, and safe to stop after any prefix, like all of `plan`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from luthier_api.conditions import merge_conditions
from luthier_api.documents import Removed
from luthier_api.finetunejob import FineTuneJobStatus, LastFailure
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests import removal
from luthier_operator.model import names
from luthier_operator.model.actions import Apply, Delete, EventNote, Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import JobView, Meta, Raw
from luthier_operator.plan.finetunejob import events_to_ask as refusals
from luthier_operator.plan.finetunejob import removals
from luthier_operator.plan.finetunejob import status as report
from luthier_operator.plan.finetunejob.situation import ObservedRuns, deletions
from luthier_operator.plan.pods.diagnosis import clip

RETRY_S = 600.0
_AGAIN_S = 2.0
_LET_GO = "To keep the versions and let the resource go at once, set deletionPolicy to Retain."
_STORY = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)


@dataclass(frozen=True)
class _Step:
    """What is done next, and the sentence that says what is waited for."""

    message: str
    deletes: tuple[Delete, ...] = ()
    applies: tuple[Apply, ...] = ()
    failed: bool = False
    requeue_after_s: float | None = None


def holds(resource: FineTuneJobResource) -> bool:
    """Whether the finalizer is to be added: something may soon be made that is to be removed at the end."""
    return resource.spec.deletion_policy == "Delete" and not resource.meta.held


def releases(resource: FineTuneJobResource) -> bool:
    """Whether the finalizer is there for nothing."""
    return resource.spec.deletion_policy == "Retain" and resource.meta.held


def plan_deletion(resource: FineTuneJobResource, observed: ObservedRuns, now: datetime, defaults: Defaults) -> Plan:
    """Return what is to be done for a resource with a deletionTimestamp."""
    if observed.refused is not None:
        said = f"The cluster refuses what that needs: {clip(observed.refused.message)}"
        return _cannot_begin(resource.meta, resource.status, said, now, defaults.refused_retry_s)
    own = [job for job in observed.jobs if job.owner_uid == resource.meta.uid]
    if not resource.meta.held:
        return Plan()  # the garbage collector removes what it owns; nothing can hold it any more
    if resource.spec.deletion_policy == "Retain":
        return _let_stay(resource, own)
    if not own and resource.status.observed_generation == 0:
        return Plan(release=True, assumes_gone=True)  # it never came to anything
    done = [job for job in own if job.stage == "remove" and job.outcome == "Complete" and not job.deleting]
    for job in done:
        came_to = removals.outcome(job, observed.pods)
        if isinstance(came_to, Removed):
            return Plan(events=(_told(came_to),), release=True)
    step = _next_step(resource, observed, own, now, defaults)
    if step.applies and observed.namespace_ending:
        # To hold the resource would hold the namespace for ever: no pod can be made in it that removes anything.
        return Plan(release=True)
    status = _status(resource.meta, resource.status, step, rfc3339(now))
    return Plan(
        deletes=step.deletes,
        applies=step.applies,
        status=None if status == resource.status else status.to_wire(),
        events=report.transitions(resource.status, status),
        requeue_after_s=step.requeue_after_s,
        # Versions are removed only when the API server itself says that nothing runs, and what is served.
        assumes_gone=bool(step.applies),
    )


def plan_unreadable(meta: Meta, raw: Raw, before: FineTuneJobStatus, why: str, now: datetime) -> Plan:
    """Return what is to be done for a resource that is being deleted and whose spec cannot be read."""
    if not meta.held:
        return Plan()
    if raw["spec"].get("deletionPolicy") != "Delete":
        return Plan(release=True)
    return _cannot_begin(meta, before, why, now)


def _cannot_begin(meta: Meta, before: FineTuneJobStatus, why: str, now: datetime, again_s: float | None = None) -> Plan:
    """Return the plan for a removal that cannot even begin: the status says why, and the way out."""
    step = _Step(f"The versions cannot be removed: {why} {_LET_GO}", failed=True)
    status = _status(meta, before, step, rfc3339(now))
    wanted = None if status == before else status.to_wire()
    return Plan(status=wanted, events=report.transitions(before, status), requeue_after_s=again_s)


def _let_stay(resource: FineTuneJobResource, own: list[JobView]) -> Plan:
    """Let the resource go as it is. A removal that has begun has no owner that would take it along."""
    begun = [job for job in own if job.stage == "remove" and job.live]
    note = EventNote(Reason.DELETING, "The versions stay in storage, because deletionPolicy is Retain.")
    return Plan(deletes=deletions(begun), events=(note,), release=True)


def _next_step(
    resource: FineTuneJobResource, observed: ObservedRuns, own: list[JobView], now: datetime, defaults: Defaults
) -> _Step:
    manifest = removal.of_all(resource.meta, resource.spec, resource.status, observed.in_use, defaults)
    name = manifest["metadata"]["name"]
    if others := [job for job in own if job.name != name]:
        runs = [job for job in others if job.stage not in names.REMOVALS]
        what = f"its {len(runs)} Jobs" if len(runs) > 1 else "its Job" if runs else "an earlier removal"
        found = [removals.trouble(job, observed) for job in others]
        lost = [trouble.message for trouble in found if trouble and trouble.reason is Reason.NODE_LOST]
        said = " ".join([f"Stopping {what}; then the versions are removed.", *lost[:1], _LET_GO])
        return _Step(said, deletions(others))
    output = resource.spec.output
    going_on = f"Removing the versions from {output.uri.rstrip('/')}/{output.name}. {_LET_GO}"
    if not own:
        if any(job.name == name for job in observed.jobs):
            return _Step(
                f"Waiting for the Job {name} of another FineTuneJob to go. {_LET_GO}", requeue_after_s=_AGAIN_S
            )
        return _Step(going_on, applies=(Apply(manifest, once=True),))
    (job,) = own
    if job.deleting:
        return _Step(going_on)
    if job.live:
        asked = refusals.questions(resource.spec, own, observed.pods, now)
        again_s = min((question.again_s for question in asked), default=None)
        return _Step(_waiting(job, observed) or going_on, requeue_after_s=again_s)
    came_to = removals.outcome(job, observed.pods)
    if not isinstance(came_to, LastFailure):
        return _Step(going_on, deletions([job]))  # its result is lost
    return _failed(job, came_to, now)


def _waiting(job: JobView, observed: ObservedRuns) -> str | None:
    """Return the sentence that says why the Job does not get on, if it does not."""
    if job.suspended and job.queue:
        view = observed.workloads.get(job.uid)
        said = f": {view.message}" if view and view.message else "."
        return f"The Job that removes the versions waits in queue {job.queue}{said} {_LET_GO}"
    trouble = removals.trouble(job, observed)
    return f"The versions cannot be removed yet: {trouble.message} {_LET_GO}" if trouble else None


def _failed(job: JobView, failure: LastFailure, now: datetime) -> _Step:
    """Say why, and try again after a while: what was wrong may have been repaired without a word to this resource."""
    left_s = RETRY_S
    if job.ended_at:
        ended = datetime.fromisoformat(job.ended_at)
        left_s = (ended + timedelta(seconds=RETRY_S) - now).total_seconds()
    text = (
        f"The versions could not be removed: {failure.message} It is tried again every {RETRY_S / 60:.0f} minutes, and "
        f"at once when the spec, or the annotation luthier.dev/retry, is edited. {_LET_GO}"
    )
    if left_s <= 0:
        return _Step(text, deletions([job]), failed=True)
    return _Step(text, failed=True, requeue_after_s=left_s)


def _status(meta: Meta, before: FineTuneJobStatus, step: _Step, now: str) -> FineTuneJobStatus:
    """Return the status while the resource waits for its end; what is known of its versions stays as it is."""
    reason = Reason.REMOVAL_FAILED if step.failed else Reason.DELETING
    state = ConditionType.STALLED if step.failed else ConditionType.RECONCILING
    rows: list[tuple[ConditionType, bool | None, Reason, str]] = [
        (ConditionType.READY, False, reason, step.message),
        (state, True, reason, step.message),
    ]
    told = merge_conditions(before.conditions, rows, generation=meta.generation, now=now)
    rest = [condition for condition in before.conditions if condition.type not in _STORY]
    update = {"observed_generation": meta.generation, "phase": "Deleting", "conditions": [*told, *rest]}
    return before.model_copy(update=update)


def _told(removed: Removed) -> EventNote:
    """Return the Event that says what became of the versions, the last that is heard of the resource."""
    gone = ", ".join(removed.removed) or "none"
    text = f"Versions removed from storage: {gone}."
    if removed.kept:
        text += " Kept: " + " ".join(f"{version} ({why.rstrip('.')})." for version, why in removed.kept.items())
    if removed.unnamed:
        text += f" And {removed.unnamed} more."
    return EventNote(Reason.REMOVED, text)
