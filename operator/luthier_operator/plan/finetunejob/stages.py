"""The two stages of a run, prepare on a CPU and then train: what is created for each, and what is said meanwhile.

Policies, like those in `policies`, which come before these. A run always begins with prepare, which looks it up: so
nothing that exists is trained again.
"""

from dataclasses import replace

from luthier_api.documents import Resolved
from luthier_api.finetunejob import LastFailure, RunStatus
from luthier_api.reasons import Reason
from luthier_operator.manifests import rendezvous
from luthier_operator.manifests.jobs import DocumentTooLarge, job
from luthier_operator.model.actions import Apply, Patch
from luthier_operator.model.names import Stage
from luthier_operator.model.timestamps import rfc3339
from luthier_operator.model.views import JobView
from luthier_operator.plan.finetunejob import crashes, restarts, verdicts, version_pruning
from luthier_operator.plan.finetunejob.runs import Run
from luthier_operator.plan.finetunejob.situation import (
    Decision,
    Situation,
    deletions,
    patch,
    suspensions,
    without_other_run,
)
from luthier_operator.plan.pods import events_to_ask, failures, image_policy, kueue
from luthier_operator.plan.pods.diagnosis import Diagnosis, diagnose, diagnose_event
from luthier_operator.plan.verdict import Verdict, image_not_allowed

_AGAIN_S = 2.0


def lost(s: Situation) -> Decision | None:
    """A Job, or the pod with its result, is gone, or another run trains the same.

    Prepare looks the run up or waits for the other one, so nothing that exists is trained again.
    """
    if s.run is None or not s.run.lost:
        return None
    remains = [job for job in (s.run.prepare, s.run.train) if job]
    record = replace(s.record, run=Run(s.run.status.model_copy(update={"stage": "Prepare"})))
    if remains:
        return Decision(verdicts.preparing(), record, deletes=deletions(remains), requeue_after_s=_AGAIN_S)
    return _begin(replace(s, record=record))


def preparing(s: Situation) -> Decision | None:
    """Inputs, data and storage are checked on a CPU, before a GPU is requested."""
    if s.run and (s.run.train or s.run.resolved):
        return None
    prepare = s.run.prepare if s.run else None
    if prepare is None:
        return _begin(s)
    verdict = verdicts.preparing(_diagnosis(s, prepare), _failure(s, prepare), s.observed.progress)
    verdict = _mirrored(s, prepare, verdict)
    return Decision(verdict, s.record, patches=_patches(s, prepare), requeue_after_s=_look_again_s(s, prepare))


def _begin(s: Situation) -> Decision:
    """Return the decision to begin, or to begin again, with prepare."""
    if clearing := version_pruning.must_go_first(s):
        return clearing
    if taken := s.name_taken("prepare"):
        return Decision(verdicts.name_taken(taken), s.record, requeue_after_s=_AGAIN_S)
    new = RunStatus(name=s.wanted.run, spec_hash=s.wanted.spec_hash, stage="Prepare")
    known = s.run.status if s.run else new
    status = known.model_copy(update={"stage": "Prepare", "started_at": known.started_at or rfc3339(s.now)})
    record = replace(without_other_run(s), run=Run(status))
    try:
        return Decision(verdicts.preparing(), record, applies=(_job(s, "prepare", None),))
    except DocumentTooLarge as error:
        failure = LastFailure(reason=Reason.INVALID_SPEC, message=f"{error}.")
        ended = Run(status.model_copy(update={"stage": "Failed", "finished_at": rfc3339(s.now)}))
        return Decision(verdicts.failed(failure), replace(record, run=ended, last_failure=failure))


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


def training(s: Situation) -> Decision | None:
    """The GPU is requested: the inputs are known, the run is new, and no other run of this resource holds one."""
    run = s.run
    assert run is not None
    if run.train is not None:
        return _watch(s, run.train)
    if any(job.stage == "train" for job in s.jobs_of_other_runs):
        return Decision(verdicts.waiting_for_run(next(job.run for job in s.jobs_of_other_runs)), s.record)
    if taken := s.name_taken("train") or (run.resolved and s.trained_for_another(run.resolved.run_key)):
        return Decision(verdicts.name_taken(taken), s.record, requeue_after_s=_AGAIN_S)
    if violation := _other_image(s, run):
        return Decision(image_not_allowed(violation), s.record)
    record = replace(s.record, run=replace(run, status=run.status.model_copy(update={"stage": "Train"})))
    kept = run.resolved.weights_version if run.resolved else None
    meeting = () if kept else _rendezvous(s)
    return Decision(verdicts.training(kept=kept), record, applies=(*meeting, _job(s, "train", run.resolved)))


def _other_image(s: Situation, run: Run) -> str | None:
    """Return why the image that prepare says it ran may not be used, if it is another than its Job's: a pod may lie."""
    image = run.resolved.image if run.resolved and not s.spec.image else None
    if run.prepare and image == run.prepare.image:
        return None
    return image_policy.violation(image, s.defaults.allowed_images, s.defaults.trainer_image)


def _watch(s: Situation, train: JobView) -> Decision:
    diagnosis, failure = _diagnosis(s, train), _failure(s, train)
    verdict = verdicts.training(diagnosis, failure, s.observed.progress, kept=train.weights_version)
    verdict = _mirrored(s, train, verdict)
    left = s.seconds_left(train)
    if left is not None and left <= 0:
        wait: float | None = _AGAIN_S  # its time is up, but its pod has not been silent for long enough
    else:
        wait = _look_again_s(s, train) if left is None else left + 1
    return Decision(verdict, s.record, patches=_patches(s, train), requeue_after_s=wait)


def _patches(s: Situation, job: JobView) -> tuple[Patch, ...]:
    """Return the changes of a Job that goes on, or that crashed twice at one place and is to make no other pod.

    That one is ended by its own limit, and not deleted: so its pods stay, and with them their logs.
    """
    if _crashed_twice(s, job) and job.backoff_limit:
        return (*suspensions(s, [job]), patch(job, {"backoffLimit": 0}))
    return suspensions(s, [job])


def _crashed_twice(s: Situation, job: JobView) -> bool:
    """Whether a Job crashed twice at one place, and no third pod runs, as one might after an upgrade."""
    assert s.run
    waits = job.outcome is None and not job.deleting and not any(pod.phase == "Running" for pod in job.pods)
    return waits and crashes.repeated(job, s.run.status.crashed_at) is not None


def _mirrored(s: Situation, job: JobView, verdict: Verdict) -> Verdict:
    workload = s.observed.workloads.get(job.uid)
    if job.held:
        return kueue.held(job, workload)
    return kueue.mirrored(verdict, job, workload, kueue_installed=s.observed.kueue_installed, now=s.now)


def _diagnosis(s: Situation, job: JobView) -> Diagnosis | None:
    """Return why a Job's pod does not start, or was not even created."""
    event = s.observed.pod_events.get(job.uid)
    return diagnose(job.pods) or (diagnose_event(event) if event else None)


def _failure(s: Situation, job: JobView) -> LastFailure | None:
    """Return why a Job's last pod failed, if another one is to follow and does not run yet."""
    last = s.record.last_failure
    of_job = last is not None and last.pod is not None and last.pod.startswith(f"{job.name}-")
    if last is None or not of_job or failures.is_final(last) or _crashed_twice(s, job):
        return None  # the Job controller ends the Job in a moment
    return None if any(pod.phase == "Running" for pod in job.pods) else last


def _look_again_s(s: Situation, job: JobView) -> float | None:
    """Return when to look again for what nothing wakes the operator for: Events about pods that cannot be created."""
    queries = events_to_ask.queries([job], s.now, mounts=s.spec.mounts)
    times = [query.again_s for query in queries]
    if pause_s := restarts.pause_s(job, s.now):
        times.append(pause_s)
    return min(times, default=None)


def _rendezvous(s: Situation) -> tuple[Apply, ...]:
    """Return the headless Service by which pods on several nodes find each other, if there are several."""
    return (Apply(rendezvous.service(s.resource.meta), once=True),) if s.spec.num_nodes > 1 else ()
