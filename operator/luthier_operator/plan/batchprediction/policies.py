"""What to do for a BatchPrediction: its lifecycle as an ordered list of policies; the first that answers decides.

    read what the run's Job has come to, and stop those of other specs
      1. answered      all predictions are in storage
      2. failed        this very run has failed: nothing until something is edited
      3. not_allowed   the image that the spec names may not run here
      4. suspended     nothing runs; what is stored stays
      5. name_taken    an earlier resource's Job has the name
      6. lost          the Job has ended well and its result is gone: the next one finds the predictions
      7. predicting    the workers run, or wait for a version, a queue or a node

Safe to stop after any prefix of what it returns and to make again.
"""

from datetime import datetime

from luthier_api.batchprediction import BatchPredictionStatus, BatchRun
from luthier_api.finetunejob import LastFailure
from luthier_api.modeldeployment import FineTuneJobRef
from luthier_operator.manifests import batch_job
from luthier_operator.model.actions import Apply, Patch, Plan
from luthier_operator.model.defaults import Defaults
from luthier_operator.model.names import batch_run_name
from luthier_operator.model.resources import BatchPredictionResource
from luthier_operator.model.timestamps import rfc3339, seconds_since
from luthier_operator.model.views import JobView, Meta
from luthier_operator.plan.batchprediction import verdicts
from luthier_operator.plan.batchprediction.record import record_of
from luthier_operator.plan.batchprediction.situation import Decision, ObservedBatch, Policy, Situation, deletion
from luthier_operator.plan.batchprediction.status import transitions, with_conditions, with_progress
from luthier_operator.plan.pods import events_to_ask, image_policy, kueue
from luthier_operator.plan.pods.diagnosis import Diagnosis, diagnose, diagnose_event
from luthier_operator.plan.target import NoTarget, Target, target_of
from luthier_operator.plan.verdict import Verdict, image_not_allowed

_AGAIN_S = 2.0
# What admission put beside our container is left so long to end by itself.
_PATIENCE_S = 10.0


def plan_batchprediction(
    resource: BatchPredictionResource, observed: ObservedBatch, now: datetime, defaults: Defaults
) -> Plan:
    """Return all that is to be done for a BatchPrediction."""
    if resource.meta.deleting or observed.namespace_ending:
        return Plan()  # the garbage collector removes its Job; what is stored stays
    if observed.refused is not None:
        verdict = verdicts.refused(observed.refused)
        return _only_status(resource.meta, resource.status, verdict, now, defaults.refused_retry_s)
    situation = _situation(resource, observed, now, defaults)
    decision = next(decision for policy in POLICIES if (decision := policy(situation)))
    status = with_conditions(resource.meta, decision.record, decision.verdict, now)
    replaced = [job for job in observed.jobs.runs if job.live and job.run != situation.run]
    return Plan(
        deletes=tuple(delete for job in replaced for delete in deletion(job)) + decision.deletes,
        patches=_expiries(situation),
        applies=decision.applies,
        status=None if status == resource.status else status.to_wire(),
        events=transitions(resource.status, status),
        requeue_after_s=decision.requeue_after_s,
    )


def plan_unreadable(meta: Meta, before: BatchPredictionStatus, why: str, now: datetime) -> Plan:
    """Return what is to be done for a resource whose spec cannot be read, which `why` explains: to say so."""
    return Plan() if meta.deleting else _only_status(meta, before, verdicts.unreadable(why), now)


def _only_status(
    meta: Meta, before: BatchPredictionStatus, verdict: Verdict, now: datetime, again_s: float | None = None
) -> Plan:
    """Return the plan that writes only conditions and their Events."""
    after = with_conditions(meta, before, verdict, now)
    status = None if after == before else after.to_wire()
    return Plan(status=status, events=transitions(before, after), requeue_after_s=again_s)


def _situation(
    resource: BatchPredictionResource, observed: ObservedBatch, now: datetime, defaults: Defaults
) -> Situation:
    run_hash = resource.spec.run_hash(resource.meta.retry)
    run = batch_run_name(resource.meta.name, run_hash)
    job = next((job for job in observed.jobs.runs if job.run == run), None)
    record, lost = record_of(resource.status, resource.spec, run, job, now)
    return Situation(resource, run_hash, record, lost, observed, now, defaults)


def answered(s: Situation) -> Decision | None:
    """All predictions are in storage."""
    if s.record.run is None or s.record.run.state != "Succeeded":
        return None
    return _at_rest(s, verdicts.answered(s.record))


def failed(s: Situation) -> Decision | None:
    """This run has failed. It is not tried again by itself: an edit, or the retry annotation, makes another run."""
    if s.record.run is None or s.record.run.state != "Failed":
        return None
    return _at_rest(s, verdicts.failed(s.record.last_failure))


def _at_rest(s: Situation, verdict: Verdict) -> Decision:
    """Return the decision that leaves a Job which has ended, and ends one that another container keeps from it."""
    job, written = s.job, s.resource.status.run
    if job is None or not job.live or not (written and written.name == s.run and written.state != "Running"):
        return Decision(verdict, s.record)
    left_s = _PATIENCE_S - seconds_since(job.ended_at, s.now) if job.lingering else 0.0
    if left_s > 0:
        return Decision(verdict, s.record, requeue_after_s=left_s)
    return Decision(verdict, s.record, deletes=deletion(job))


def not_allowed(s: Situation) -> Decision | None:
    """The image that the spec names may not run here. What may have been allowed before is stopped."""
    violation = image_policy.violation(s.spec.runtime.image, s.defaults.allowed_images, s.defaults.server_image)
    return None if violation is None else Decision(image_not_allowed(violation), s.record, deletes=deletion(s.job))


def suspended(s: Situation) -> Decision | None:
    """Nothing runs while `suspend` is set. The Job is made again later, and computes what is missing."""
    return Decision(verdicts.suspended(), s.record, deletes=deletion(s.job)) if s.spec.suspend else None


def name_taken(s: Situation) -> Decision | None:
    """A Job of an earlier resource of this name has the name of this run's."""
    taken = next((job for job in s.observed.jobs.others if job.run == s.run), None)
    return Decision(verdicts.name_taken(taken), s.record, requeue_after_s=_AGAIN_S) if taken else None


def lost(s: Situation) -> Decision | None:
    """The Job has ended well, and the pod with its result is gone: the next one finds the predictions in storage."""
    if not s.lost and not (s.job and s.job.deleting):
        return None
    return Decision(verdicts.predicting(s.record), s.record, deletes=deletion(s.job), requeue_after_s=_AGAIN_S)


def predicting(s: Situation) -> Decision | None:
    """The workers run, or wait for a version, a queue or a node."""
    if s.job is None:
        return _begin(s)
    record = with_progress(s.record, s.observed.progress)
    if record.version is None and isinstance(target := _target(s), Target):
        record = _with_target(record, target)
    verdict = verdicts.predicting(record, _diagnosis(s, s.job), _failure(s, s.job))
    queries = events_to_ask.queries([s.job], s.now, mounts=s.spec.mounts)
    again_s = min((query.again_s for query in queries), default=None)
    return Decision(_mirrored(s, s.job, verdict), record, requeue_after_s=again_s)


POLICIES: tuple[Policy, ...] = (answered, failed, not_allowed, suspended, name_taken, lost, predicting)


def _begin(s: Situation) -> Decision:
    """Return the decision to make the Job, with the version that was chosen when the run began."""
    target = _target(s)
    if isinstance(target, NoTarget):
        return Decision(verdicts.no_target(target), s.record)
    run = s.record.run or BatchRun(name=s.run, state="Running", started_at=rfc3339(s.now))
    record = _with_target(s.record.model_copy(update={"run": run}), target)
    grant = None if s.spec.model.uri and s.spec.model.is_unset() else target.grant
    meta = s.resource.meta
    bulk = batch_job.document(
        meta,
        s.spec,
        run=s.run,
        begun=run.started_at or "",
        model_uri=target.uri,
        digest=target.digest,
        model=grant,
    )
    made = batch_job.job(meta, s.spec, run_hash=s.run_hash, bulk=bulk, model=grant, defaults=s.defaults)
    return Decision(verdicts.predicting(record), record, applies=(Apply(made, once=True),))


def _target(s: Situation) -> Target | NoTarget:
    """Return the version of the run: the one that it began with, or else the one that the spec stands for now."""
    model, begun_with = s.spec.model, s.record.version or (s.job.weights_version if s.job else "")
    if model.fine_tune_job_ref and begun_with:
        pinned = FineTuneJobRef(name=model.fine_tune_job_ref.name, version=begun_with)
        model = model.model_copy(update={"fine_tune_job_ref": pinned})
    return target_of(model, s.observed.finetunejob)


def _with_target(record: BatchPredictionStatus, target: Target) -> BatchPredictionStatus:
    update = {"version": target.version, "digest": target.digest, "model_uri": target.uri}
    return record.model_copy(update=update)


def _mirrored(s: Situation, job: JobView, verdict: Verdict) -> Verdict:
    workload = s.observed.workloads.get(job.uid)
    if job.held:
        return kueue.held(job, workload)
    return kueue.mirrored(verdict, job, workload, kueue_installed=s.observed.kueue_installed, now=s.now)


def _diagnosis(s: Situation, job: JobView) -> Diagnosis | None:
    """Return why a worker does not start, unless others run."""
    if any(pod.phase == "Running" for pod in job.pods):
        return None
    event = s.observed.pod_events.get(job.uid)
    return diagnose(job.pods) or (diagnose_event(event, "runtime.resources") if event else None)


def _failure(s: Situation, job: JobView) -> LastFailure | None:
    """Return why a worker failed, if none runs until another one is there."""
    return None if any(pod.phase == "Running" for pod in job.pods) else s.record.last_failure


def _expiries(s: Situation) -> tuple[Patch, ...]:
    """Give Jobs whose outcome is in the written status their time to live, and no Job before that."""
    ttl, written = s.spec.ttl_seconds_after_finished, s.resource.status.run
    done = [job for job in s.observed.jobs.runs if not job.live and not job.deleting and job.ttl_s != ttl]
    known = [job for job in done if job.run != s.run or (written and written.name == s.run and written.finished_at)]
    return tuple(
        Patch("batch/v1", "Job", job.namespace, job.name, {"spec": {"ttlSecondsAfterFinished": ttl}}) for job in known
    )
