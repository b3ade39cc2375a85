"""What to do for a FineTuneJob: its lifecycle as an ordered list of policies, of which the first that answers decides.

    read what the Jobs have come to, and stop those that an edit has replaced
      1. answered      a known version answers the spec: no Job at all
      2. failed        this very run has failed: nothing until something is edited
      3. not_allowed   the image that the spec names may not run here
      4. waiting       a training of an earlier spec may finish (concurrencyPolicy Forbid)
      5. suspended     nothing runs
      6. given_up      a training that is stuck, or lost one of its pods, starts over from its checkpoint
      7. lost          a result is gone, or another run trains the same: look the run up again, or wait in prepare
      8. preparing     inputs, data and storage are checked on a CPU
      9. training      the GPU is requested, only after all that

Safe to stop after any prefix of what it returns and to make again.
"""

from dataclasses import replace
from datetime import datetime

from luthier_api.finetunejob import FineTuneJobStatus
from luthier_api.keys import run_hash, spec_hash
from luthier_operator.model import names
from luthier_operator.model.actions import Patch, Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import JobView, Meta, Raw
from luthier_operator.plan.finetunejob import deletion, restarts, sidecars, verdicts, version_pruning
from luthier_operator.plan.finetunejob.runs import Wanted, first_in, record_of
from luthier_operator.plan.finetunejob.situation import (
    Decision,
    ObservedRuns,
    Policy,
    Situation,
    adoption,
    can_be_suspended,
    deletions,
    may_finish,
    patch,
    suspensions,
    without_other_run,
)
from luthier_operator.plan.finetunejob.stages import lost, preparing, training
from luthier_operator.plan.finetunejob.status import replaced, status_of, transitions, with_conditions
from luthier_operator.plan.pods import image_policy
from luthier_operator.plan.verdict import Verdict, image_not_allowed

_ADOPTED_S = 1.0


def plan_finetunejob(resource: FineTuneJobResource, observed: ObservedRuns, now: datetime, defaults: Defaults) -> Plan:
    """Return all that is to be done for a FineTuneJob."""
    if resource.meta.deleting:
        return deletion.plan_deletion(resource, observed, now, defaults)
    if observed.refused is not None:
        verdict = verdicts.refused(observed.refused)
        return _only_status(resource.meta, resource.status, verdict, now, defaults.refused_retry_s)
    if observed.namespace_ending:
        return Plan()  # the resource goes with it
    situation = _situation(resource, observed, now, defaults)
    if orphans := situation.orphans:
        adoptions = tuple(adoption(situation, job) for job in orphans)
        return Plan(patches=adoptions, events=(verdicts.adopted(orphans),), requeue_after_s=_ADOPTED_S)
    decision = next(decision for policy in POLICIES if (decision := policy(situation)))
    pruning = version_pruning.pruning_of(situation, decision)
    status = _status(situation, decision, pruning)
    stopped = _replaced(situation)
    lingering = sidecars.outlived(situation)
    return Plan(
        hold=deletion.holds(resource),
        deletes=deletions(stopped) + decision.deletes + pruning.deletes + lingering.deletes,
        patches=decision.patches + _expiries(situation),
        applies=decision.applies + pruning.applies,
        status=None if status == resource.status else status.to_wire(),
        events=replaced(stopped)
        + decision.events
        + transitions(resource.status, status)
        + pruning.events
        + lingering.events,
        release=deletion.releases(resource),
        requeue_after_s=_soonest(decision.requeue_after_s or pruning.requeue_after_s, lingering.requeue_after_s),
        assumes_gone=(situation.run is not None and situation.run.lost) or pruning.assumes_unused,
    )


def _soonest(*times: float | None) -> float | None:
    return min((each for each in times if each is not None), default=None)


def plan_unreadable(meta: Meta, raw: Raw, before: FineTuneJobStatus, why: str, now: datetime) -> Plan:
    """Return what is to be done for a resource whose spec cannot be read: to say so.

    Args:
        meta: its metadata.
        raw: the resource itself.
        before: the status that it has.
        why: one sentence that says what cannot be read.
        now: the time.
    """
    if meta.deleting:
        return deletion.plan_unreadable(meta, raw, before, why, now)
    return _only_status(meta, before, verdicts.unreadable(why), now)


def _only_status(
    meta: Meta, before: FineTuneJobStatus, verdict: Verdict, now: datetime, again_s: float | None = None
) -> Plan:
    """Return the plan that writes only conditions and their Events."""
    after = with_conditions(meta, before, verdict, now)
    status = None if after == before else after.to_wire()
    return Plan(status=status, events=transitions(before, after), requeue_after_s=again_s)


def _situation(resource: FineTuneJobResource, observed: ObservedRuns, now: datetime, defaults: Defaults) -> Situation:
    wanted = wanted_of(resource)
    record = record_of(resource.status, wanted, observed.jobs.runs, observed.workloads, now)
    return Situation(resource, wanted, record, observed, now, defaults)


def _status(s: Situation, decision: Decision, pruning: version_pruning.Pruning) -> FineTuneJobStatus:
    record = replace(decision.record, versions=pruning.versions)
    output = s.spec.output if record.run and record.run.name == s.wanted.run else None
    resource = s.resource
    return status_of(resource.meta, resource.status, record, decision.verdict, s.observed.progress, output, s.now)


def wanted_of(resource: FineTuneJobResource) -> Wanted:
    """Return what the spec asks for.

    An image that the spec does not name is not part of it: a new version of the operator, which brings another trainer
    image, must neither stop a run nor start one. It is part of the run key, which prepare computes.
    """
    image = resource.spec.image or ""
    run = run_hash(resource.spec, image, resource.meta.retry)
    return Wanted(spec_hash(resource.spec, image), names.run_name(resource.meta.name, run, resource.spec.num_nodes))


def answered(s: Situation) -> Decision | None:
    """A known version answers the spec, be it just published, found by prepare, or from before an edit."""
    version = s.record.answer_to(s.wanted.spec_hash)
    if version is None:
        return None
    record = without_other_run(s)
    if record.versions[0].spec_hash != s.wanted.spec_hash:
        chosen = version.model_copy(update={"chosen_at": rfc3339(s.now)})
        record = replace(record, versions=first_in(record.versions, chosen))
    idle = [job for job in s.jobs_of_run if job.outcome is None]
    return Decision(verdicts.answered(s.resource.status, version, record.published), record, deletes=deletions(idle))


def failed(s: Situation) -> Decision | None:
    """This run has failed. It is not tried again by itself: an edit, or the retry annotation, makes another run.

    What still runs of it, if it failed because it was stuck, is deleted.
    """
    if s.run is None or s.run.status.stage != "Failed":
        return None
    idle = [job for job in s.jobs_of_run if job.outcome is None]
    return Decision(verdicts.failed(s.record.last_failure), s.record, deletes=deletions(idle))


def not_allowed(s: Situation) -> Decision | None:
    """The image that the spec names may not run here. What may have been allowed before is stopped."""
    violation = image_policy.violation(s.spec.image, s.defaults.allowed_images, s.defaults.trainer_image)
    if violation is None:
        return None
    idle = [job for job in s.jobs_of_run if job.live]
    return Decision(image_not_allowed(violation), without_other_run(s), deletes=deletions(idle))


def waiting(s: Situation) -> Decision | None:
    """A training of an earlier spec may finish first, because concurrencyPolicy is Forbid."""
    training = [job for job in s.jobs_of_other_runs if may_finish(s, job)]
    if not training:
        return None
    verdict = verdicts.suspended() if s.spec.suspend else verdicts.waiting_for_run(training[0].run)
    return Decision(verdict, s.record, patches=suspensions(s, training))


def suspended(s: Situation) -> Decision | None:
    """Nothing runs while `suspend` is set. Jobs are suspended, or made again later; a training keeps its checkpoint."""
    if not s.spec.suspend:
        return None
    stopped = [job for job in s.jobs_of_run if job.live and not can_be_suspended(job)]
    record, train = without_other_run(s), s.run.train if s.run else None
    if train in stopped:
        record = restarts.set_aside(s)
    idle = [job for job in stopped if job is not train]
    told = tuple(verdicts.resumed_again(job) for job in idle if job.suspensions and not job.deleting)
    return Decision(
        verdicts.suspended(),
        record,
        deletes=deletions(idle),
        patches=suspensions(s, s.jobs_of_run),
        events=told[:1],
    )


def given_up(s: Situation) -> Decision | None:
    """A training that is stuck, or lost one of its pods, starts over from its newest checkpoint; see `restarts`."""
    if s.run is None:
        return None
    if s.run.abandoned is None:
        record = restarts.due(s)
        return Decision(verdicts.starting_over(record), record) if record else None
    return Decision(verdicts.starting_over(s.record), s.record, deletes=deletions([s.run.abandoned]))


POLICIES: tuple[Policy, ...] = (answered, failed, not_allowed, waiting, suspended, given_up, lost, preparing, training)


def _replaced(s: Situation) -> list[JobView]:
    """Return the running Jobs that an edit of the spec stops."""
    return [job for job in s.jobs_of_other_runs if not may_finish(s, job) and not job.deleting]


def _expiries(s: Situation) -> tuple[Patch, ...]:
    """Give Jobs whose outcome is in the written status their time to live, and no Job before that.

    A Job that expired while the operator was down would take its result along, and the run would start again.
    """
    ttl = s.spec.ttl_seconds_after_finished
    written = s.resource.status.current_run
    awaited = {written.name} if written and written.stage in ("Prepare", "Train") else set()
    if s.record.run and (written is None or written.name != s.record.run.name):
        awaited.add(s.record.run.name)
    done = [job for job in s.jobs if not job.live and not job.deleting and job.run not in awaited]
    return tuple(patch(job, {"ttlSecondsAfterFinished": ttl}) for job in done if job.ttl_s != ttl)
