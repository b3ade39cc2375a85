"""What to do for a FineTuneJob that is being deleted, and the finalizer that holds it until that is done.

    deletionPolicy Retain   nothing: the garbage collector stops what runs, and the versions stay
    deletionPolicy Delete   hold the resource from before its first Job on; then, once it is deleted:
                            stop its Jobs -> wait until they are gone -> one Job removes the versions -> release

The policy may be edited at any time, also while the resource waits: Retain releases it at once. While the resource is
held, its status says why, and names that way out.
Safe to stop after any prefix, like all of `plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from luthier_api.conditions import merge_conditions
from luthier_api.documents import Removed
from luthier_api.finetunejob import FineTuneJobStatus, LastFailure
from luthier_api.reasons import ConditionType, Reason
from luthier_operator.manifests import removal
from luthier_operator.model import names
from luthier_operator.model.actions import Apply, Delete, EventNote, Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.timestamps import rfc3339, seconds_since
from luthier_operator.model.views import JobView, Meta, Raw
from luthier_operator.plan.finetunejob import removals
from luthier_operator.plan.finetunejob.situation import ObservedRuns, deletions
from luthier_operator.plan.finetunejob.status import transitions
from luthier_operator.plan.pods import events_to_ask, kueue
from luthier_operator.plan.pods.diagnosis import clip

RETRY_S = 600.0
_AGAIN_S = 2.0
_WAY_OUT = "To keep the versions and release the resource at once, set deletionPolicy to Retain."
_CONDITIONS = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)


@dataclass(frozen=True)
class _Step:
    """What is done next, and the sentence for the status."""

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
        why = f"The cluster refuses what that needs: {clip(observed.refused.message)}"
        return _cannot_begin(resource.meta, resource.status, why, now, defaults.refused_retry_s)
    own = observed.jobs.own
    if not resource.meta.held:
        return Plan()  # nothing can hold it any more, and the garbage collector removes what it owns
    if resource.spec.deletion_policy == "Retain":
        return _retain(own)
    if not own and resource.status.observed_generation == 0:
        return Plan(release=True, assumes_gone=True)  # nothing was ever created for it
    done = [job for job in own if job.stage == "remove" and job.outcome == "Complete" and not job.deleting]
    for job in done:
        outcome = removals.outcome(job)
        if isinstance(outcome, Removed):
            outlived = [job] if job.lingering else []
            return Plan(deletes=deletions(outlived), events=(_removed(outcome),), release=True)
    step = _next_step(resource, observed, own, now, defaults)
    if step.applies and observed.namespace_ending:
        # To hold the resource would hold the namespace for ever: no pod can be created in it to remove anything.
        return Plan(release=True)
    status = _status(resource.meta, resource.status, step, now)
    return Plan(
        deletes=step.deletes,
        applies=step.applies,
        status=None if status == resource.status else status.to_wire(),
        events=transitions(resource.status, status),
        requeue_after_s=step.requeue_after_s,
        # Versions are removed only after the API server itself was asked what runs, and what is served.
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
    step = _Step(f"The versions cannot be removed: {why} {_WAY_OUT}", failed=True)
    status = _status(meta, before, step, now)
    wanted = None if status == before else status.to_wire()
    return Plan(status=wanted, events=transitions(before, status), requeue_after_s=again_s)


def _retain(own: Sequence[JobView]) -> Plan:
    """Release the resource as it is. A removal under way has no owner reference, so it is deleted here."""
    begun = [job for job in own if job.stage == "remove" and job.live]
    note = EventNote(Reason.DELETING, "The versions stay in storage because deletionPolicy is Retain.")
    return Plan(deletes=deletions(begun), events=(note,), release=True)


def _next_step(
    resource: FineTuneJobResource, observed: ObservedRuns, own: Sequence[JobView], now: datetime, defaults: Defaults
) -> _Step:
    manifest = removal.of_all(resource.meta, resource.spec, resource.status, observed.in_use, defaults)
    name = manifest["metadata"]["name"]
    if others := [job for job in own if job.name != name]:
        runs = [job for job in others if job.stage not in names.REMOVALS]
        what = f"its {len(runs)} Jobs" if len(runs) > 1 else "its Job" if runs else "an earlier removal"
        found = [removals.diagnosis_of(job, observed.pod_events) for job in others]
        lost = [diagnosis.message for diagnosis in found if diagnosis and diagnosis.reason is Reason.NODE_LOST]
        text = " ".join([f"Stopping {what}; then the versions are removed.", *lost[:1], _WAY_OUT])
        return _Step(text, deletions(others))
    output = resource.spec.output
    under_way = f"Removing the versions from {output.uri.rstrip('/')}/{output.name}. {_WAY_OUT}"
    if not own:
        if observed.jobs.has(name):
            return _Step(
                f"Waiting for the Job {name} of another FineTuneJob to be removed. {_WAY_OUT}", requeue_after_s=_AGAIN_S
            )
        return _Step(under_way, applies=(Apply(manifest, once=True),))
    (job,) = own
    if job.deleting:
        return _Step(under_way)
    if job.outcome is None:
        queries = events_to_ask.queries(own, now, mounts=resource.spec.mounts)
        again_s = min((query.again_s for query in queries), default=None)
        return _Step(_waiting(job, observed) or under_way, requeue_after_s=again_s)
    outcome = removals.outcome(job)
    if not isinstance(outcome, LastFailure):
        return _Step(under_way, deletions([job]))  # its result is lost
    return _failed(job, outcome, now)


def _waiting(job: JobView, observed: ObservedRuns) -> str | None:
    """Return the sentence that says why the Job makes no progress, if it makes none."""
    if job.suspended and job.queue:
        view = observed.workloads.get(job.uid)
        why = f": {view.message}" if view and view.message else "."
        return f"The Job that removes the versions waits in queue {job.queue}{why} {_WAY_OUT}"
    if job.held:
        return f"{kueue.held(job, observed.workloads.get(job.uid)).message} {_WAY_OUT}"
    diagnosis = removals.diagnosis_of(job, observed.pod_events)
    return f"The versions cannot be removed yet: {diagnosis.message} {_WAY_OUT}" if diagnosis else None


def _failed(job: JobView, failure: LastFailure, now: datetime) -> _Step:
    """Say why, and try again after a while: the cause may be removed without an edit of this resource."""
    left_s = RETRY_S - seconds_since(job.ended_at, now)
    text = (
        f"The versions could not be removed: {failure.message} Luthier tries again every {RETRY_S / 60:.0f} minutes, "
        f"and at once when the spec or the annotation luthier.dev/retry is edited. {_WAY_OUT}"
    )
    if left_s <= 0:
        return _Step(text, deletions([job]), failed=True)
    return _Step(text, failed=True, requeue_after_s=left_s)


def _status(meta: Meta, before: FineTuneJobStatus, step: _Step, now: datetime) -> FineTuneJobStatus:
    """Return the status while the resource is held; what is known of its versions stays as it is."""
    reason = Reason.REMOVAL_FAILED if step.failed else Reason.DELETING
    state = ConditionType.STALLED if step.failed else ConditionType.RECONCILING
    rows: list[tuple[ConditionType, bool | None, Reason, str]] = [
        (ConditionType.READY, False, reason, step.message),
        (state, True, reason, step.message),
    ]
    conditions = merge_conditions(before.conditions, rows, generation=meta.generation, now=rfc3339(now))
    rest = [condition for condition in before.conditions if condition.type not in _CONDITIONS]
    update = {"observed_generation": meta.generation, "phase": "Deleting", "conditions": [*conditions, *rest]}
    return before.model_copy(update=update)


def _removed(removed: Removed) -> EventNote:
    """Return the Event that says what became of the versions. It outlives the resource."""
    gone = ", ".join(removed.removed) or "none"
    text = f"Versions removed from storage: {gone}."
    if removed.kept:
        text += " Kept: " + " ".join(f"{version} ({why.rstrip('.')})." for version, why in removed.kept.items())
    if removed.unnamed:
        text += f" And {removed.unnamed} more."
    return EventNote(Reason.REMOVED, text)
