"""What to do for a FineTuneJob: its lifecycle, as an ordered list of policies. The first that has an opinion decides.

    harvest what the Jobs came to, and stop those that an edit has replaced
      1. answered      a known version answers the spec: no Job at all
      2. failed        this very run has failed: nothing until something is edited
      3. not allowed   the image that the spec names may not run here
      4. waiting       a training of an earlier spec may finish (concurrencyPolicy Forbid)
      5. suspended     nothing runs
      6. given up      a training that is stuck, or lost one of its pods, starts over from its checkpoint
      7. lost          a result is gone: look the run up again, never train again blindly
      8. preparing     inputs, data and storage are checked on a CPU
      9. training      the GPU is asked for, only after all that

Pure: no clock, no network, no randomness. Safe to stop after any prefix of what it returns and to make again.
"""

from dataclasses import replace
from datetime import datetime

from luthier_api.documents import Resolved
from luthier_api.finetunejob import FineTuneJobStatus, LastFailure, RunStatus
from luthier_api.keys import run_hash, spec_hash
from luthier_api.reasons import Reason
from luthier_operator.manifests import rendezvous
from luthier_operator.manifests.jobs import DocumentTooLarge, job
from luthier_operator.model import names
from luthier_operator.model.actions import Apply, Patch, Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.names import Stage
from luthier_operator.model.resources import FineTuneJobResource
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import JobView, Meta, Raw
from luthier_operator.plan.finetunejob import deletion, restarts
from luthier_operator.plan.finetunejob import events_to_ask as refusals
from luthier_operator.plan.finetunejob import status as report
from luthier_operator.plan.finetunejob import version_pruning as history
from luthier_operator.plan.finetunejob.runs import Run, Wanted, first_in, harvest
from luthier_operator.plan.finetunejob.situation import (
    Decision,
    ObservedRuns,
    Policy,
    Situation,
    deletions,
    patch,
    protected,
    rests,
    suspensions,
    without_others,
)
from luthier_operator.plan.pods import diagnosis as troubles
from luthier_operator.plan.pods import failures, image_policy
from luthier_operator.plan.pods import kueue as queueing
from luthier_operator.plan.pods.diagnosis import Trouble

_AGAIN_S = 2.0


def plan_finetunejob(resource: FineTuneJobResource, observed: ObservedRuns, now: datetime, defaults: Defaults) -> Plan:
    """Return all that is to be done for a FineTuneJob."""
    if resource.meta.deleting:
        return deletion.plan_deletion(resource, observed, now, defaults)
    if observed.refused is not None:
        after = report.only_saying(resource.meta, resource.status, report.refused(observed.refused), rfc3339(now))
        return _saying(resource.status, after, defaults.refused_retry_s)
    if observed.namespace_ending:
        return Plan()  # the resource goes with it
    wanted = wanted_of(resource)
    own = [job for job in observed.jobs if job.owner_uid == resource.meta.uid and job.stage not in names.REMOVALS]
    memory = harvest(resource.status, wanted, own, observed.pods, rfc3339(now))
    memory = queueing.remembered(memory, observed.workloads)
    situation = Situation(resource, wanted, memory, observed, rfc3339(now), defaults)
    decision = next(decision for policy in POLICIES if (decision := policy(situation)))
    upkeep = history.upkeep(situation, decision)
    memory = replace(decision.memory, versions=upkeep.versions)
    run = memory.run
    output = resource.spec.output if run and run.name == wanted.run else None
    status = report.status(
        resource.meta, resource.status, memory, decision.verdict, observed.progress, output, situation.now
    )
    replaced = _replacements(situation)
    return Plan(
        hold=deletion.holds(resource),
        deletes=deletions(replaced) + decision.deletes + upkeep.deletes,
        patches=decision.patches + _expiries(situation),
        applies=decision.applies + upkeep.applies,
        status=None if status == resource.status else status.to_wire(),
        events=report.replaced(replaced) + report.transitions(resource.status, status) + upkeep.events,
        release=deletion.releases(resource),
        requeue_after_s=decision.requeue_after_s or upkeep.requeue_after_s,
        assumes_gone=(situation.run is not None and situation.run.lost) or upkeep.unsure,
    )


def plan_unreadable(meta: Meta, raw: Raw, before: FineTuneJobStatus, why: str, now: datetime) -> Plan:
    """Return what is to be done for a resource whose spec cannot be read: to say so, and touch nothing.

    Args:
        meta: its metadata.
        raw: it itself.
        before: the status that it has.
        why: one sentence that says what cannot be read.
        now: the time.
    """
    if meta.deleting:
        return deletion.plan_unreadable(meta, raw, before, why, now)
    return _saying(before, report.only_saying(meta, before, report.spec_unreadable(why), rfc3339(now)))


def _saying(before: FineTuneJobStatus, after: FineTuneJobStatus, again_s: float | None = None) -> Plan:
    """Return the plan that writes nothing but a status and its Events."""
    status = None if after == before else after.to_wire()
    return Plan(status=status, events=report.transitions(before, after), requeue_after_s=again_s)


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
    version = s.memory.answer_to(s.wanted.spec_hash)
    if version is None:
        return None
    memory = without_others(s)
    if memory.versions[0].spec_hash != s.wanted.spec_hash:
        memory = replace(memory, versions=first_in(memory.versions, version.model_copy(update={"chosen_at": s.now})))
    idle = [job for job in s.jobs if job.live and job.run == s.wanted.run]
    return Decision(report.answered(s.resource.status, version, memory.published), memory, deletes=deletions(idle))


def failed(s: Situation) -> Decision | None:
    """This run has failed. It is not tried again by itself: an edit, or the retry annotation, makes another run.

    What still runs of it, because it failed of being stuck, goes.
    """
    if s.run is None or s.run.status.stage != "Failed":
        return None
    idle = [job for job in s.jobs if job.live and job.run == s.wanted.run]
    return Decision(report.failed(s.memory.last_failure), s.memory, deletes=deletions(idle))


def not_allowed(s: Situation) -> Decision | None:
    """The image that the spec names may not run here. What may have been allowed before is stopped."""
    refusal = image_policy.violation(s.spec.image, s.defaults.allowed_images, s.defaults.trainer_image)
    if refusal is None:
        return None
    mine = [job for job in s.jobs if job.live and job.run == s.wanted.run]
    return Decision(report.image_not_allowed(refusal), without_others(s), deletes=deletions(mine))


def waiting(s: Situation) -> Decision | None:
    """A training of an earlier spec may finish first, because concurrencyPolicy is Forbid."""
    training = [job for job in s.rivals if protected(s, job)]
    if not training:
        return None
    verdict = report.suspended() if s.spec.suspend else report.waiting_for_run(training[0].run)
    return Decision(verdict, s.memory, patches=suspensions(s, training))


def suspended(s: Situation) -> Decision | None:
    """Nothing runs while `suspend` is set. Jobs rest, or are made again later; a training goes on where it was."""
    if not s.spec.suspend:
        return None
    mine = [job for job in s.jobs if job.run == s.wanted.run]
    going = [job for job in mine if job.live and not rests(job)]
    memory, train = without_others(s), s.run.train if s.run else None
    if train in going:
        memory = restarts.set_aside(s)
    idle = [job for job in going if job is not train]
    return Decision(report.suspended(), memory, deletes=deletions(idle), patches=suspensions(s, mine))


def given_up(s: Situation) -> Decision | None:
    """A training that is stuck, or lost one of its pods, starts over from its newest checkpoint; see `restarts`."""
    if s.run is None:
        return None
    if s.run.abandoned is None:
        memory = restarts.due(s)
        return Decision(report.starting_over(memory), memory) if memory else None
    return Decision(report.starting_over(s.memory), s.memory, deletes=deletions([s.run.abandoned]))


def lost(s: Situation) -> Decision | None:
    """A Job, or the pod with its result, is gone. Prepare looks the run up, so nothing that exists is trained again."""
    if s.run is None or not s.run.lost:
        return None
    remains = [job for job in (s.run.prepare, s.run.train) if job]
    memory = replace(s.memory, run=Run(s.run.status.model_copy(update={"stage": "Prepare"})))
    if remains:
        return Decision(report.preparing(), memory, deletes=deletions(remains), requeue_after_s=_AGAIN_S)
    return _begin(replace(s, memory=memory))


def preparing(s: Situation) -> Decision | None:
    """Inputs, data and storage are looked at on a CPU, before a GPU is asked for."""
    if s.run and (s.run.train or s.run.resolved):
        return None
    prepare = s.run.prepare if s.run else None
    if prepare is None:
        return _begin(s)
    verdict = report.preparing(_trouble(s, prepare), _failure(s, prepare))
    verdict = queueing.mirrored(verdict, prepare, s.observed, s.now)
    return Decision(verdict, s.memory, patches=suspensions(s, [prepare]), requeue_after_s=_look_again_s(s, prepare))


def training(s: Situation) -> Decision | None:
    """The GPU is asked for: the inputs are known, the run is new, and no other run of this resource holds one."""
    run = s.run
    assert run is not None
    if run.train is not None:
        return _watch(s, run.train)
    if any(job.stage == "train" for job in s.rivals):
        return Decision(report.waiting_for_run(next(job.run for job in s.rivals)), s.memory)
    if s.taken("train") or (run.resolved and s.trained_for_another(run.resolved.run_key)):
        return Decision(report.name_taken(), s.memory, requeue_after_s=_AGAIN_S)
    if refusal := _other_image(s, run):
        return Decision(report.image_not_allowed(refusal), s.memory)
    memory = replace(s.memory, run=replace(run, status=run.status.model_copy(update={"stage": "Train"})))
    return Decision(report.training(), memory, applies=(*_meeting_place(s), _job(s, "train", run.resolved)))


def _other_image(s: Situation, run: Run) -> str | None:
    """Return why the image that prepare says it ran may not be used, if it is another than its Job's: a pod may lie."""
    image = run.resolved.image if run.resolved and not s.spec.image else None
    if run.prepare and image == run.prepare.image:
        return None
    return image_policy.violation(image, s.defaults.allowed_images, s.defaults.trainer_image)


def _watch(s: Situation, train: JobView) -> Decision:
    verdict = report.training(_trouble(s, train), _failure(s, train), s.observed.progress)
    verdict = queueing.mirrored(verdict, train, s.observed, s.now)
    left = s.seconds_left(train)
    if left is not None and left <= 0:
        wait: float | None = _AGAIN_S  # its time is up, but its pod was not asked in vain for long enough
    else:
        wait = _look_again_s(s, train) if left is None else left + 1
    return Decision(verdict, s.memory, patches=suspensions(s, [train]), requeue_after_s=wait)


def _trouble(s: Situation, job: JobView) -> Trouble | None:
    """Return why a Job's pod does not run, or was not even made."""
    refusal = s.observed.refusals.get(job.uid)
    pods = failures.pods_of(job, s.observed.pods)
    return troubles.trouble_of(pods) or (troubles.refusal(refusal) if refusal else None)


def _failure(s: Situation, job: JobView) -> LastFailure | None:
    """Return why a Job's last pod failed, if another one is made and does not run yet."""
    last, pods = s.memory.last_failure, failures.pods_of(job, s.observed.pods)
    mine = last is not None and last.pod is not None and last.pod.startswith(f"{job.name}-")
    if last is None or not mine or failures.is_final(last):
        return None  # the Job controller ends the Job in a moment
    return None if any(pod.phase == "Running" for pod in pods) else last


def _look_again_s(s: Situation, job: JobView) -> float | None:
    """Return when to look again for what nothing wakes the operator for: Events about pods that cannot be made."""
    asked = refusals.questions(s.spec, [job], s.observed.pods, datetime.fromisoformat(s.now))
    return min((question.again_s for question in asked), default=None)


def _meeting_place(s: Situation) -> tuple[Apply, ...]:
    """Return the headless Service by which pods on several nodes find each other, if there are several."""
    return (Apply(rendezvous.service(s.resource.meta), once=True),) if s.spec.num_nodes > 1 else ()


POLICIES: tuple[Policy, ...] = (answered, failed, not_allowed, waiting, suspended, given_up, lost, preparing, training)


def _begin(s: Situation) -> Decision:
    """Return the decision to begin, or to begin again, with prepare."""
    if removal := history.in_the_way(s):
        return removal
    if s.taken("prepare"):
        return Decision(report.name_taken(), s.memory, requeue_after_s=_AGAIN_S)
    new = RunStatus(name=s.wanted.run, spec_hash=s.wanted.spec_hash, stage="Prepare")
    known = s.run.status if s.run else new
    status = known.model_copy(update={"stage": "Prepare", "started_at": known.started_at or s.now})
    memory = replace(without_others(s), run=Run(status))
    try:
        return Decision(report.preparing(), memory, applies=(_job(s, "prepare", None),))
    except DocumentTooLarge as error:
        failure = LastFailure(reason=Reason.INVALID_SPEC, message=f"{error}.")
        ended = Run(status.model_copy(update={"stage": "Failed", "finished_at": s.now}))
        return Decision(report.failed(failure), replace(memory, run=ended, last_failure=failure))


def _job(s: Situation, stage: Stage, resolved: Resolved | None) -> Apply:
    manifest = job(
        s.resource.meta,
        s.spec,
        stage=stage,
        run=s.wanted.run,
        spec_hash=s.wanted.spec_hash,
        resolved=resolved,
        defaults=s.defaults,
        failures=s.run.status.earlier_failures if s.run and stage == "train" else 0,
    )
    return Apply(manifest, once=True)


def _replacements(s: Situation) -> list[JobView]:
    """Return the running Jobs that an edit of the spec stops."""
    return [job for job in s.rivals if not protected(s, job) and not job.deleting]


def _expiries(s: Situation) -> tuple[Patch, ...]:
    """Give Jobs whose outcome is in the written status their time to live, and no Job before that.

    A Job that expired while the operator was down would take its result along, and the run would be made again.
    """
    ttl = s.spec.ttl_seconds_after_finished
    written = s.resource.status.current_run
    awaited = {written.name} if written and written.stage in ("Prepare", "Train") else set()
    if s.memory.run and (written is None or written.name != s.memory.run.name):
        awaited.add(s.memory.run.name)
    done = [job for job in s.jobs if not job.live and not job.deleting and job.run not in awaited]
    return tuple(patch(job, {"ttlSecondsAfterFinished": ttl}) for job in done if job.ttl_s != ttl)
